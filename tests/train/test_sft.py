"""The loop on a tiny model and real conversations: it learns, it resumes, it never mixes sequences."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.counting import MakeCountUp, count_up

from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights
from magister.train import checkpoint
from magister.train.optimizer import OptimizerConfig
from magister.train.packing import Rows, pack
from magister.train.progress import read_log
from magister.train.sft import SftConfig, _loss_function, packed_loss, train
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
    loss_of = _loss_function(model, CONFIG, torch.device("cpu"), "fp32")
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

    ragged = _loss_function(model, CONFIG, torch.device("cpu"), "fp32")(rows)
    assert float(packed_loss(model, masked, rows, torch.device("cpu")).detach()) == pytest.approx(
        float(ragged.detach()), rel=1e-5
    )


def test_training_lowers_the_loss_and_logs_every_step(tmp_path: Path) -> None:
    model = tiny()
    train(model, SPEC, replace(CONFIG, total_steps=60), tmp_path)
    log = read_log(tmp_path)
    assert [record.step for record in log] == list(range(1, 61))
    assert log[-1].loss < 0.6 * log[0].loss
    assert all(before.tokens < after.tokens for before, after in pairwise(log))


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight = tiny()
    train(straight, SPEC, CONFIG, tmp_path / "straight")

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

    killed = replace(CONFIG, checkpoint_seconds=0.0)
    checkpoint.save = save_then_die
    try:
        with pytest.raises(Killed):
            train(tiny(), SPEC, killed, tmp_path / "resumed")
    finally:
        checkpoint.save = real
    resumed = tiny(seed=9)
    train(resumed, SPEC, killed, tmp_path / "resumed")
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_another_configuration_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train(tiny(), SPEC, replace(CONFIG, total_steps=1), tmp_path)
    with pytest.raises(ValueError, match="was made with"):
        train(tiny(), SPEC, replace(CONFIG, total_steps=2, rows_per_batch=3), tmp_path)
