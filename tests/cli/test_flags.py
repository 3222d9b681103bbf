"""How a model is computed is said in several places, and all of them know the same of it."""

import inspect
from dataclasses import fields
from typing import get_args

import pytest
import torch

import magister
from magister.cli.engine_process import _FLAGS
from magister.cli.flags import Flags, KernelChoice
from magister.cli.main import chat
from magister.cli.placement import Placement
from magister.cli.serve_commands import batch, serve
from magister.kernels import cpu


def test_every_way_to_start_a_model_takes_what_placement_has() -> None:
    has = {field.name for field in fields(Placement)}
    assert set(Flags.__annotations__) == set(_FLAGS) == has
    for way in (chat, serve, batch):
        assert has <= set(inspect.signature(way).parameters), way
    assert set(get_args(get_args(KernelChoice)[0])) == {"auto", "torch", *cpu.NEEDS}


def test_python_hands_on_all_that_the_commands_take() -> None:
    wrong = {"device": "tpu", "dtype": "x", "context": 1, "kv": "x", "kernels": "sse", "threads": 0, "speculation": -1}
    assert set(wrong) == set(Flags.__annotations__)
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            magister.load("nano", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="gpu"):
        magister.load("nano", gpu=0)  # type: ignore[call-arg]


def test_a_cpus_kernels_are_refused_on_a_gpu_whether_or_not_it_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("magister.kernels.cuda.missing", lambda: "triton is not installed")
    with pytest.raises(ValueError, match="kernels is 'avx2', on CUDA there are auto and torch"):
        magister.load("nano", device="cuda", kernels="avx2")
