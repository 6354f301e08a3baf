import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from approxifer.errors import ConfigError
from approxifer.pipeline.records import AttemptOutcome
from approxifer.pipeline.reporting.timeline import draw_timeline, read_session
from approxifer.text import natural


def attempt(worker, fate, start, stop, share=0):
    return {
        "share": share, "attempt": 0, "worker": worker, "fate": fate, "start": start, "stop": stop,
        "error": None,
    }  # fmt: skip


def group(*attempts, session="a", kind="coded", number=0):
    return {
        "event": "group", "session": session, "group": number, "window": 0, "kind": kind,
        "shares": {}, "attempts": list(attempts),
    }  # fmt: skip


def journal():
    return [
        {"event": "session", "session": "a", "time": 1.7e9, "rows": 1000},
        {"event": "unheard-of", "session": "a", "what": "ever"},
        group(
            attempt("worker-2", "used", 0.0, 1.0),
            attempt("worker-10", "dropped", 0.0, 1.2),
            attempt("worker-1", "unstarted", None, None),
            attempt("worker-1", "lost", 0.5, None),
        ),
        group(attempt("worker-2", "used", 1.5, 2.0), kind="repair"),
        group(attempt("worker-2", "a new fate", 1.5, 2.0)),
        {"event": "worker", "session": "a", "time": 1.3, "worker": "worker-10", "what": "hung"},
        {"event": "worker", "session": "a", "time": None, "worker": "worker-9", "what": "ready"},
        {"event": "worker", "session": "a", "time": 0.1, "worker": "worker-3", "what": "ready"},
        {"event": "window", "session": "a", "window": 0, "rows": [0, 1000], "time": 2.1},
        {"event": "close", "session": "a", "counts": {"exact": 1000}, "wall_seconds": 2.5},
    ]


def test_read_session():
    found = read_session(journal())
    assert found.workers == ["worker-1", "worker-2", "worker-3", "worker-10"]
    assert found.bars == {
        "used": [("worker-2", 0.0, 1.0)],
        "dropped": [("worker-10", 0.0, 1.2)],
        "repair": [("worker-2", 1.5, 2.0)],
        "lost": [("worker-1", 0.5, 2.5)],  # to the end
    }
    assert found.counts == {"used": 1, "repair": 1, "dropped": 1, "lost": 1, "unstarted": 1}
    assert found.marks == {"hung": [("worker-10", 1.3)]}
    assert (found.commits, found.end) == ([2.1], 2.5)
    assert found.headline == "1,000 rows, 1,000 exact, 2.5 s"


def test_which_session():
    events = [
        *journal(),
        {"event": "session", "session": "b", "time": 1.8e9, "rows": 5},
        group(attempt("late", "used", 0.0, 7.0), session="b"),
    ]
    assert read_session(events).workers == ["late"]
    assert read_session(events).end == 7.0  # not closed: as far as is known
    assert read_session(events, "a").end == 2.5
    with pytest.raises(ConfigError, match="no session c; it has: a, b"):
        read_session(events, "c")
    with pytest.raises(ConfigError, match="it has: none"):
        read_session([])


def test_natural():
    names = ["worker-10", "worker-9", "a", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a", "worker-9", "worker-10"]


def test_svg_tells_all(tmp_path):
    path = draw_timeline(journal(), tmp_path / "t.svg", title="my run")
    ET.parse(path)
    text = path.read_text()
    for words in (
        "my run", "1,000 rows, 1,000 exact, 2.5 s", "worker-10", "used (1)", "used, repair (1)",
        "dropped: straggler (1)", "lost with its worker (1)", "dropped unstarted (1)",
        "worker hung (1)", "window committed (1)", "seconds since the session began",
    ):  # fmt: skip
        assert f"<!-- {words} -->" in text, words
    assert "not needed" not in text


def test_png_and_its_suffix(tmp_path):
    path = draw_timeline(journal(), tmp_path / "t.PNG")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"'t\.pdf' given; give a name that ends in \.png"):
        draw_timeline(journal(), tmp_path / "t.pdf")
    with pytest.raises(ConfigError, match="cannot be written"):
        draw_timeline(journal(), tmp_path / "none" / "t.png")


@pytest.mark.parametrize("workers", [0, 1, 100])
def test_any_number_of_workers(tmp_path, workers):
    events = [journal()[0], group(*(attempt(f"w{i}", "used", 0, 1) for i in range(workers)))]
    assert draw_timeline(events, tmp_path / "t.png").stat().st_size > 1000


def test_no_pyplot(tmp_path):
    import sys

    draw_timeline(journal(), tmp_path / "t.png")
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.slow
def test_ten_thousand_attempts(tmp_path):
    rng = np.random.default_rng(0)
    fates = rng.choice([f.value for f in AttemptOutcome], 10_000)
    attempts = [
        attempt(f"worker-{i % 20}", fate, (i // 20) * 0.1, (i // 20) * 0.1 + 0.09)
        for i, fate in enumerate(fates)
    ]
    begin = time.process_time()
    draw_timeline([journal()[0], group(*attempts)], tmp_path / "t.png")
    assert time.process_time() - begin < 12  # 1.5 s here; 7 s were seen on a busy machine
