"""Models of several outputs, and what is made of outputs, from whole runs on worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import several_outputs
import toy_corruptions
import toy_models
import xarray as xr
import zarr
from distributed import Client, LocalCluster

from approxifer import score, submit
from approxifer.coding import CodeSpec, block_rows, gather, order_rows
from approxifer.datasets import Journal, OutputStore
from approxifer.errors import FingerprintError
from approxifer.models.outputs.postprocess import argmax, softmax, topk
from approxifer.pipeline import api, faults
from approxifer.pipeline.records import Block, Status
from approxifer.pipeline.reporting.inspect import inspect_store

SUPPORT = Path(__file__).parents[2] / "support"
COMMON: dict[str, Any] = {"k": 4, "block": 5, "window": 100, "progress": False}


def check(report: Any, expected: dict[str, np.ndarray]) -> None:
    """Every output is that of a plain loop, bit for bit, in its own dtype."""
    found = report.predictions.load()
    for name, output in expected.items():
        assert found[name].dtype == output.dtype
        np.testing.assert_array_equal(found[name], output, err_msg=name)
    assert report.counts["failed"] == 0


@pytest.mark.parametrize("scheme", ["uncoded", "systematic", "replication"])
def test_a_dict_of_two_with_a_slow_worker(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str
) -> None:
    faults.install(client, {"1": faults.Slow(0.2)})
    report = score(
        store, model=several_outputs.both, out=tmp_path / "out.zarr", client=client,
        **COMMON | {"scheme": scheme},
    )  # fmt: skip
    check(report, several_outputs.both(rows))
    found = report.predictions
    assert "prediction" not in found
    assert found.field.dims == ("sample", "field_0", "field_1")
    assert {found[name].encoding["chunks"][0] for name in ("field", "logits", "status")} == {100}
    assert "predictions field float64 (2, 3), logits float32 (3)" in inspect_store(report.out)


def test_each_output_is_decoded_for_itself(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"1": faults.Slow(0.2)})
    report = score(
        store, model=several_outputs.both, out=tmp_path / "out.zarr", client=client,
        repair="none", order="none", **COMMON,
    )  # fmt: skip
    found, code = report.predictions.load(), CodeSpec("systematic", 4).build()
    order = order_rows(100, 4, how="none", block=5, seed=0)
    decoded = 0
    for event in Journal.read(report.out):
        if event["event"] != "group" or event["kind"] != "coded":
            continue
        first = 20 * (event["group"] % 5)
        members = 100 * event["window"] + order[first : first + 20]
        shares = code.encode(gather(rows, members, 4))
        outputs = {
            int(share): several_outputs.both(shares[int(share)]) for share in event["shares"]
        }
        for name in ("field", "logits"):
            alone = code.decode({share: one[name] for share, one in outputs.items()}).blocks
            for block, there in enumerate(block_rows(members, 4)):
                if (found.status.values[there] == Status.DECODED).all():
                    size = np.abs(alone[block]).max()
                    np.testing.assert_allclose(
                        found[name].values[there], alone[block], atol=1e-5 * size
                    )
                    decoded += len(there)
    assert decoded == 2 * report.counts["decoded"] > 0


def test_numbers_of_any_type_come_as_they_are(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NamedTuple; then resumed where nothing is left, and with rows appended."""
    options = COMMON | {"scheme": "uncoded", "model": several_outputs.scored}
    out = tmp_path / "out.zarr"
    expected = several_outputs.scored(rows)._asdict()
    blocks: list[Block] = []

    async def collect() -> None:
        job = submit(store, out=out, client=client, **options)
        blocks.extend([block async for block in job])
        check(job.result(), expected)

    asyncio.run(collect())
    seen = np.concatenate([block.rows for block in blocks])
    large = np.concatenate([block.predictions["large"] for block in blocks])  # type: ignore[call-overload]
    np.testing.assert_array_equal(large, expected["large"][seen])
    assert set(seen) == set(range(400))

    with monkeypatch.context() as patched:
        patched.setattr(api, "open_workers", None)
        assert score(store, out=out, **options).resumed == 400

    more = np.random.default_rng(8).normal(size=(50, 4, 4)).astype(np.float32)
    added = xr.Dataset({"x": (("sample", "a", "b"), more)})
    added.to_zarr(store, append_dim="sample", consolidated=False)
    report = score(store, out=out, client=client, append=True, **options)
    check(report, several_outputs.scored(np.concatenate([rows, more]))._asdict())
    assert report.resumed == 400


MADE: dict[str, tuple[Any, Any]] = {
    "argmax": ("argmax", lambda scores: {"prediction": argmax(scores)}),
    "softmax": ("softmax", lambda scores: {"prediction": softmax(scores)}),
    "topk": ("topk:2", lambda s: {f"prediction_{n}": v for n, v in topk(s, 2).items()}),
    "own": (several_outputs.spread, several_outputs.spread),
}


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        ("uncoded", "argmax"),
        ("uncoded", "own"),
        ("systematic", "softmax"),
        ("systematic", "topk"),
        ("systematic", "own"),
    ],
)
def test_what_is_made_of_outputs(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str, kind: str
) -> None:
    asked, made = MADE[kind]
    report = score(
        store, model=toy_models.linear, out=tmp_path / "out.zarr", client=client,
        postprocess=asked, scheme=scheme, **COMMON,
    )  # fmt: skip
    check(report, made(toy_models.linear(rows)))
    assert ("prediction" in report.predictions) == (kind in ("argmax", "softmax"))


def test_decoded_rows_that_it_cannot_take_are_run_again(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"1": faults.Slow(0.2)})
    report = score(
        store, model=several_outputs.signs, out=tmp_path / "out.zarr", client=client,
        postprocess=several_outputs.counted_signs, repair="none", **COMMON,
    )  # fmt: skip
    assert report.counts["repaired"] > 0
    found = report.predictions.load()
    plain = several_outputs.counted_signs(several_outputs.signs(rows))
    exact = found.status.values != Status.DECODED
    np.testing.assert_array_equal(found.prediction.values[exact], plain[exact])


def test_the_outputs_are_kept_beside_it(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    options = COMMON | {"model": toy_models.linear, "client": client, "out": out}
    report = score(store, postprocess="argmax", keep=True, **options)
    raw = toy_models.linear(rows)
    check(report, {"prediction": raw, "prediction_argmax": argmax(raw)})
    for changes, message in (
        ({}, r"postprocess: given None, stored \{'function': 'argmax', 'keep': True\}"),
        ({"postprocess": "argmax"}, r"postprocess\.keep: given False, stored True"),
        (
            {"postprocess": "softmax", "keep": True},
            r"postprocess\.function: given 'softmax', stored 'argmax'",
        ),
    ):
        with pytest.raises(FingerprintError, match=message):
            score(store, **options | changes)


@pytest.mark.parametrize("keep", [False, True])
def test_a_liar_is_found_and_made_good_whatever_is_stored(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, keep: bool
) -> None:
    """Honest for long enough to have written rows, and checked others', before it is found out."""
    faults.install(client, {"3": toy_corruptions.Later(after=8)})
    report = score(
        store, model=toy_models.slow_linear, out=tmp_path / "out.zarr", client=client, byzantine=1,
        postprocess="topk:2", keep=keep, scheme="uncoded", **COMMON,
    )  # fmt: skip
    assert [one.member.name for one in report.convicted] == ["3"]
    raw = toy_models.linear(rows)
    check(report, MADE["topk"][1](raw) | ({"prediction": raw} if keep else {}))


def test_a_liar_among_outputs_of_several_types(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    faults.install(client, {"3": toy_corruptions.Later(after=4)})
    report = score(
        store, model=several_outputs.labelled, out=tmp_path / "out.zarr", client=client,
        byzantine=1, scheme="uncoded", **COMMON,
    )  # fmt: skip
    assert [one.member.name for one in report.convicted] == ["3"]
    check(report, several_outputs.labelled(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("several_outputs:make_scored", {"scheme": "uncoded"},
         lambda rows: several_outputs.scored(rows)._asdict()),
        ("several_outputs:make_both", {"postprocess": "several_outputs:joined", "keep": True},
         lambda rows: several_outputs.both(rows)
         | {"postprocessed": several_outputs.joined(several_outputs.both(rows))}),
    ],
)  # fmt: skip
def test_a_client_that_was_killed_goes_on(
    cluster: LocalCluster,
    client: Client,
    store: Path,
    rows: np.ndarray,
    tmp_path: Path,
    model: str,
    options: dict[str, Any],
    expected: Any,
) -> None:
    out, asked = tmp_path / "out.zarr", {"model": model, "append": False} | options
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "score_and_die.py"), cluster.scheduler_address, str(store),
         str(out), "3", json.dumps(asked)],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)}, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    pending = OutputStore.open(out, write=False).status() == Status.PENDING
    assert 0 < pending.sum() < 400
    report = score(store, out=out, client=client, **COMMON | {"window": 40} | asked)
    assert report.resumed == 400 - pending.sum()
    check(report, expected(rows))


def test_one_output_is_stored_as_before(client: Client, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    score(store, model=toy_models.linear, out=out, client=client, **COMMON)
    group = zarr.open_group(str(out), mode="r")
    assert group.attrs["approxifer_store"] == 2
    assert group.attrs["output"]["variable"] == "prediction"
    assert "postprocess" not in group.attrs


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("named", [False, True])
def test_a_program_of_two_heads(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, named: bool
) -> None:
    import torch

    class TwoHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(16, 3), torch.nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> Any:
            one, two = self.one(x.flatten(1)), self.two(x.flatten(1))
            return {"one": one, "two": two} if named else (one, two)

    module, batch = TwoHeads().eval(), torch.export.Dim("batch")
    program = torch.export.export(module, (torch.ones(4, 4, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "two.pt2")
    report = score(
        store, model=tmp_path / "two.pt2", out=tmp_path / "out.zarr", client=client, **COMMON
    )
    expected = module(torch.from_numpy(rows))
    expected = expected if named else dict(zip(("output_0", "output_1"), expected, strict=True))
    found = report.predictions.load()
    for name, output in expected.items():
        np.testing.assert_allclose(found[name], output.detach(), rtol=1e-5, atol=1e-6)
