import io
from itertools import pairwise

import pytest

from approxifer.pipeline.records import Progress
from approxifer.pipeline.reporting.progress import ProgressBar, describe
from approxifer.text import duration


def snapshot(**changes) -> Progress:
    plain = {
        "rows": 10_000, "counts": {"exact": 3_000, "decoded": 0, "repaired": 90}, "elapsed": 5.0,
        "rate": 618.0, "eta": 11.2, "stage": "running", "workers": 10,
    }  # fmt: skip
    return Progress(**(plain | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "3,090 of 10,000 rows (3,000 exact, 90 repaired), 618 rows/s, 11 s left, 10 workers"),
        (
            {"resumed": 1_000, "provisional": 8, "workers": 1},
            "4,090 of 10,000 rows (3,000 exact, 90 repaired, 1,000 from earlier sessions, "
            "8 more to be repaired), 618 rows/s, 11 s left, 1 worker",
        ),
        ({"counts": {}, "rate": None, "eta": None}, "0 of 10,000 rows, 10 workers"),
        (
            {"counts": {"exact": 10_000}, "stage": "done", "rate": None},
            "10,000 of 10,000 rows (10,000 exact), done after 5 s",
        ),
        ({"rows": 0, "stage": "opening the model"}, "opening the model"),
    ],
)
def test_describe(changes, text):
    assert describe(snapshot(**changes)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
        (185, "3 min 05 s"), (3599.7, "1 h 00 min"), (7620, "2 h 07 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


class TestLines:
    """Where there is no terminal."""

    def show(self, snapshots, **options):
        stream, now = io.StringIO(), [0.0]
        with ProgressBar(stream=stream, clock=lambda: now[0], **options) as bar:
            for time, progress in snapshots:
                now[0] = time
                bar.update(progress)
        return stream.getvalue().splitlines()

    def test_first_then_every_5_s_then_last(self):
        times = [0.1 * i for i in range(1, 131)]
        lines = self.show((t, snapshot(elapsed=t, eta=60 - t)) for t in times)
        assert len(lines) == 4  # 0.1, 5.1, 10.1 and 13
        assert all(line.startswith("approxifer: 3,090 of 10,000 rows") for line in lines)
        assert all(a != b for a, b in pairwise(lines))

    def test_each_new_stage(self):
        stages = ["opening", "opening", "starting", "running", "closing"]
        shown = [(0.1 * i, snapshot(rows=0, stage=s)) for i, s in enumerate(stages)]
        lines = ["approxifer: " + s for s in ("opening", "starting", "running", "closing")]
        assert self.show(shown) == lines

    def test_the_last_one_is_not_repeated(self):
        assert len(self.show([(0.0, snapshot())])) == 1

    def test_nothing_to_show(self):
        assert self.show([]) == []
        assert self.show([(0.0, snapshot())], enabled=False) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    stream = Terminal()
    with ProgressBar(stream=stream) as bar:
        bar.update(snapshot(rows=0, stage="opening the model"))
        bar.update(snapshot())
    assert "3,090 of 10,000 rows" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_nothing_on_a_terminal_either():
    stream = Terminal()
    with ProgressBar(False, stream=stream) as bar:
        bar.update(snapshot())
    assert stream.getvalue() == ""


def test_the_block_may_fail():
    stream = io.StringIO()

    def interrupted():
        with ProgressBar(stream=stream) as bar:
            bar.update(snapshot())
            bar.update(snapshot(eta=3.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "3 s left" in stream.getvalue().splitlines()[-1]
