"""The loop on a tiny model and real conversations: it learns, it resumes, it never mixes sequences."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest
import torch
from tests.counting import MakeCountUp, count_up

from magister.model.attention import segment_lengths
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights
from magister.train import checkpoint
from magister.train.bridge import Bridge
from magister.train.interrupt import first_interrupt
from magister.train.optimizer import Optimizer, OptimizerConfig
from magister.train.packing import Rows, pack
from magister.train.progress import read_log
from magister.train.sft import Precision, SftConfig, _loss_function, packed_loss, train
from magister.train.shards import Cursor, ShardSpec, batches, make_shard

TINY = DecoderConfig(
    dim=32,
    n_layers=2,
    head_dim=16,
    hidden_dim=64,
    n_heads=2,
    n_kv_heads=1,
    norm_eps=1e-5,
    vocab_size=64,
    rope_theta=10_000.0,
    max_position_embeddings=256,
)
CONFIG = SftConfig(rows_per_batch=2, total_steps=6, optimizer=OptimizerConfig(), precision="fp32", compile=False)

IDENTITY: dict[str, str | int] = {"seed": 5, "weights": "none"}

SPEC = ShardSpec(make=MakeCountUp(), seed=5, size=40, row_length=48, pad=0)


def tiny(seed: int = 0) -> Model:
    model = build(ModelConfig(TINY, None))
    init_weights(model, seed)
    return model


def rows_of(count: int) -> Rows:
    return pack([count_up(seed) for seed in range(count)], 48, 0)


def test_a_shard_is_a_function_of_seed_and_number() -> None:
    one, dropped = make_shard(SPEC, 3)
    two, _ = make_shard(SPEC, 3)
    other, _ = make_shard(SPEC, 4)
    assert dropped == 0
    assert (one.ids_rt == two.ids_rt).all()
    assert one.ids_rt.shape != other.ids_rt.shape or (one.ids_rt != other.ids_rt).any()


def test_batches_go_on_from_any_cursor() -> None:
    source = batches(SPEC, 2, Cursor(0, 0))
    seen = [next(source) for _ in range(12)]
    source.close()
    resumed = batches(SPEC, 2, seen[6][1])
    for rows, cursor in seen[7:]:
        again, again_cursor = next(resumed)
        assert (rows.ids_rt == again.ids_rt).all()
        assert cursor == again_cursor
    resumed.close()


def test_packed_loss_equals_the_loss_of_each_sequence_alone() -> None:
    model = tiny()
    packed_rows = rows_of(12)
    loss_of = _loss_function(model, Bridge(model), CONFIG, torch.device("cpu"), "fp32")
    together = loss_of(packed_rows)
    total, learned = 0.0, 0
    for seed in range(12):
        alone = pack([count_up(seed)], 48, 0)
        count = sum(count_up(seed).learn)
        total += float(loss_of(alone).detach()) * count
        learned += count
    assert float(together.detach()) == pytest.approx(total / learned, rel=1e-5)


def test_the_masked_and_the_ragged_network_give_one_loss() -> None:
    from magister.model.attention import PackedAttention, packed_positions

    model, rows = tiny(), rows_of(12)

    def masked(ids_bt: torch.Tensor, segments_bt: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = model(ids_bt, packed_positions(segments_bt), PackedAttention(segments_bt))
        return hidden

    ragged = _loss_function(model, Bridge(model), CONFIG, torch.device("cpu"), "fp32")(rows)
    assert float(packed_loss(model, Bridge(model), masked, rows, torch.device("cpu")).detach()) == pytest.approx(
        float(ragged.detach()), rel=1e-5
    )


def test_the_compiled_network_gives_the_same_loss_and_is_compiled_once_for_all_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the C++ that torch would write and compile of it: a minute, and torch's own to test.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model, device = tiny(), torch.device("cpu")
    plain = _loss_function(model, Bridge(model), CONFIG, device, "fp32")
    compiled = _loss_function(model, Bridge(model), replace(CONFIG, compile=True), device, "fp32")
    packed = rows_of(40)
    one, two, other = (
        Rows(packed.ids_rt[part], packed.segments_rt[part], packed.targets_rt[part])
        for part in (slice(0, 2), slice(2, 4), slice(4, 6))
    )
    assert len({len(segment_lengths(torch.from_numpy(rows.segments_rt))) for rows in (one, two, other)}) > 1
    for rows in (one, two):  # That the number of sequences differs is learned from the second batch.
        assert float(compiled(rows).detach()) == pytest.approx(float(plain(rows).detach()), rel=1e-5)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert float(compiled(other).detach()) == pytest.approx(float(plain(other).detach()), rel=1e-5)


def test_training_lowers_the_loss_and_logs_every_step(tmp_path: Path) -> None:
    model = tiny()
    train(model, SPEC, replace(CONFIG, total_steps=60), tmp_path, IDENTITY)
    log = read_log(tmp_path)
    assert [record.step for record in log] == list(range(1, 61))
    assert log[-1].loss < 0.6 * log[0].loss
    assert all(before.tokens < after.tokens for before, after in pairwise(log))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, precision: Precision) -> None:
    config = replace(CONFIG, precision=precision)
    straight = tiny()
    train(straight, SPEC, config, tmp_path / "straight", IDENTITY)

    class Killed(BaseException):
        pass

    saved = 0
    real = checkpoint.save

    def save_then_die(folder: Path, state: dict[str, object]) -> Path:
        nonlocal saved
        saved += 1
        path = real(folder, state)
        if saved == 3:
            raise Killed
        return path

    killed = replace(config, checkpoint_seconds=0.0)
    checkpoint.save = save_then_die
    try:
        with pytest.raises(Killed):
            train(tiny(), SPEC, killed, tmp_path / "resumed", IDENTITY)
    finally:
        checkpoint.save = real
    resumed = tiny(seed=9)
    train(resumed, SPEC, killed, tmp_path / "resumed", IDENTITY)
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_another_configuration_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train(tiny(), SPEC, replace(CONFIG, total_steps=1), tmp_path, IDENTITY)
    with pytest.raises(ValueError, match="was made with rows_per_batch 2, this run asks for 3"):
        train(tiny(), SPEC, replace(CONFIG, total_steps=2, rows_per_batch=3), tmp_path, IDENTITY)
    slower = replace(CONFIG, total_steps=2, optimizer=OptimizerConfig(matrix_rate=0.01))
    with pytest.raises(ValueError, match=r"matrix_rate 0\.02, this run asks for 0\.01"):
        train(tiny(), SPEC, slower, tmp_path, IDENTITY)


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"seed": 6, "weights": "none"}, "made with seed 5, this run asks for 6"),
        ({"seed": 5, "weights": "abc"}, "made with weights none, this run asks for abc"),
        ({"seed": 5}, "made with weights none, this run asks for None"),
    ],
)
def test_other_data_does_not_go_on_from_a_checkpoint(tmp_path: Path, identity: dict[str, str | int], said: str) -> None:
    train(tiny(), SPEC, replace(CONFIG, total_steps=1), tmp_path, IDENTITY)
    with pytest.raises(ValueError, match=said):
        train(tiny(), SPEC, CONFIG, tmp_path, identity)
    train(tiny(), SPEC, replace(CONFIG, total_steps=2), tmp_path, IDENTITY)
    assert len(read_log(tmp_path)) == 2


def test_a_checkpoint_without_an_identity_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"model": {}, "config": {}, "step": 1})
    with pytest.raises(ValueError, match="earlier version"):
        train(tiny(), SPEC, CONFIG, tmp_path, IDENTITY)


def test_ctrl_c_ends_the_step_saves_and_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = tiny()
    train(straight, SPEC, CONFIG, tmp_path / "straight", IDENTITY)
    real = Optimizer.step

    def interrupted(self: Optimizer, progress: float) -> float:
        if progress == 2 / CONFIG.total_steps:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, progress)

    monkeypatch.setattr(Optimizer, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 6"):
        train(tiny(), SPEC, CONFIG, tmp_path / "resumed", IDENTITY)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    state = checkpoint.load(tmp_path / "resumed")
    assert state is not None
    assert state["step"] == len(read_log(tmp_path / "resumed")) == 3
    resumed = tiny(seed=9)
    train(resumed, SPEC, CONFIG, tmp_path / "resumed", IDENTITY)
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name


@pytest.mark.parametrize("own", [signal.default_int_handler, lambda number, frame: None])
def test_a_second_ctrl_c_interrupts_at_once(own: Callable[[int, FrameType | None], None]) -> None:
    before = signal.signal(signal.SIGINT, own)
    try:
        with first_interrupt() as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    train(tiny(), SPEC, replace(CONFIG, total_steps=2), tmp_path, IDENTITY)
    path = tmp_path / checkpoint.NAME
    state = checkpoint.load(tmp_path)
    assert state is not None
    state["model"]["decoder.norm.weight"].fill_(float("nan"))
    checkpoint.save(tmp_path, state)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="the loss of step 3 is nan"):
        train(tiny(), SPEC, replace(CONFIG, checkpoint_seconds=0.0), tmp_path, IDENTITY)
    assert path.read_bytes() == before
    assert len(read_log(tmp_path)) == 2


def test_the_log_is_on_disk_before_each_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    real = checkpoint.save

    def save(folder: Path, state: dict[str, object]) -> Path:
        logged.append((state["step"], len(read_log(folder))))
        return real(folder, state)

    monkeypatch.setattr(checkpoint, "save", save)
    train(tiny(), SPEC, replace(CONFIG, checkpoint_seconds=0.0), tmp_path, IDENTITY)
    assert logged == [(step, step) for step in range(1, 7)]
