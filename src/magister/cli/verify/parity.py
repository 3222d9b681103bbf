"""Parity with transformers on a checkpoint's own weights, one layer at a time, so that a network larger than memory can
be compared.

Both sides compute in float32 from the same input, so a fault in one layer is not carried into the next. From Hugging
Face files transformers gets the tensors as they are stored, from others by way of this project's own conversion; what a
file itself has wrong, both sides have wrong. Needs transformers, which is imported here only.

Shapes: t tokens, d decoder width, p patches, c encoder width.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magister.cli.verify.check import relative
from magister.cli.verify.tensors import ENDS, VISION, Group, head_dim, pieces, plain, rows
from magister.kernels import reference
from magister.kernels.quantized import Quantized
from magister.model import names, permute, quantized_files, shards, weights
from magister.model.attention import CausalAttention
from magister.model.config import ModelConfig
from magister.model.config_files import config_json
from magister.model.decoder import Attention, Block, FeedForward
from magister.model.network import Model, build, set_parameter
from magister.model.rope import image_rotation, make_wheel, text_rotation

TOKENS = 32
"""Of the input to a layer."""

EMBEDDINGS, NORM, HEAD = "tok_embeddings.weight", "norm.weight", "output.weight"

SOME = 1000
"""Rows of the embeddings that are looked at."""

Figures = dict[str, dict[str, float]]
"""What was compared -> where -> the relative difference."""

INSTALL = "pip install 'transformers>=5,<6'"


def missing() -> str | None:
    """Why there is no parity check here; None where there can be one."""
    found = importlib.util.find_spec("transformers")
    return None if found else f"transformers is not installed: {INSTALL}"


class Parity:
    """transformers' modules of one decoder layer and of the image network, filled with a group's weights in turn."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        """ValueError for a network that transformers has no words for."""
        self._config = config
        self._raw = _raw(path)
        self._description = _description(path, config)
        self._text = _text_model(self._description)

    @torch.inference_mode()
    def compare(self, name: str, group: Group) -> Figures:
        """What differs how much in the group of this name."""
        if name == VISION:
            return self._image_network(plain(group))
        return self._ends(group) if name == ENDS else self._layer(name, plain(group))

    def _layer(self, name: str, tensors: dict[str, Tensor]) -> Figures:
        c = self._config.decoder
        theirs = {name.split(".", 3)[3]: value for name, value in self._theirs(tensors).items()}
        layer = self._text.layers[0]
        layer.load_state_dict(theirs, assign=True)
        x_td = _random(TOKENS, c.dim)
        with _recorded({"attention": layer.self_attn, "feed-forward": layer.mlp}) as seen:
            self._text(inputs_embeds=x_td[None], use_cache=False)
        block = _block(c.dim, c.n_heads, c.n_kv_heads, c.head_dim, c.hidden_dim, c.norm_eps)
        block.load_state_dict({name.split(".", 2)[2]: value for name, value in tensors.items()}, assign=True)
        wheel = make_wheel(c.head_dim, c.rope_theta, x_td.device)
        rotation = text_rotation(torch.arange(TOKENS), wheel)
        attended_td = block.attention(block.attention_norm(x_td), rotation, 0, CausalAttention())
        fed_td = block.feed_forward(block.ffn_norm(x_td + attended_td))
        # The next layer must not find this one still in memory.
        layer.to("meta")
        return {
            "attention": {name: relative(attended_td, seen["attention"][0])},
            "feed-forward": {name: relative(fed_td, seen["feed-forward"][0])},
        }

    def _ends(self, group: Group) -> Figures:
        """Embeddings and head, some rows at a time."""
        tied = self._config.decoder.tied_embeddings
        looked_up, head = group[EMBEDDINGS], group[EMBEDDINGS if tied else HEAD]
        everything, some = slice(None), slice(0, SOME)
        norm = rows(group[NORM], everything)
        self._text.norm.load_state_dict({"weight": rows(self._as_theirs(NORM, norm), everything)}, assign=True)
        x_td = 3 * _random(4, self._config.decoder.dim)
        mine_td = reference.rms_norm(x_td, norm, self._config.decoder.norm_eps)
        theirs_td = self._text.norm(x_td)
        their_head = self._as_theirs(EMBEDDINGS if tied else HEAD, head)
        pairs = [
            (F.linear(mine_td, rows(head, piece)), F.linear(theirs_td, rows(their_head, piece)))
            for piece in pieces(head)
        ]
        mine_tv, theirs_tv = (torch.cat(parts, 1) for parts in zip(*pairs, strict=True))
        their_rows = rows(self._as_theirs(EMBEDDINGS, looked_up), some)
        return {
            "embeddings": {f"the first {SOME} rows": relative(rows(looked_up, some), their_rows)},
            "final norm and output head": {"": relative(mine_tv, theirs_tv)},
        }

    def _image_network(self, tensors: dict[str, Tensor]) -> Figures:
        c = self._config.vision
        assert c is not None
        theirs = _image_model(self._description)
        theirs.load_state_dict(self._theirs(tensors), assign=True, strict=False)
        ours = build(self._config)
        for name, value in tensors.items():
            set_parameter(ours, name, value)
        assert ours.vision is not None
        side = c.token_pixels
        image = _random(c.num_channels, 2 * side, 3 * side)
        layers = theirs.vision_tower.transformer.layers
        watched = {"features": theirs.multi_modal_projector}
        for number, layer in enumerate(layers):
            watched |= {f"in {number}": layer.attention_norm, f"attention {number}": layer.attention}
            watched |= {f"feed-forward {number}": layer.feed_forward}
        with _recorded(watched) as seen:
            theirs.get_image_features(pixel_values=image[None], image_sizes=torch.tensor([image.shape[1:]]))
        patches = [length // c.patch_size for length in image.shape[1:]]
        rotation = image_rotation(patches[0], patches[1], c.head_dim, c.rope_theta, image.device)
        attention, feed_forward = dict[str, float](), dict[str, float]()
        for number, block in enumerate(ours.vision.vision_encoder.transformer.layers):
            assert isinstance(block, Block)
            x_pc = seen[f"in {number}"][1]
            attended_pc = block.attention(block.attention_norm(x_pc), rotation, 0, _all)
            fed_pc = block.feed_forward(block.ffn_norm(x_pc + attended_pc))
            attention[f"layer {number}"] = relative(attended_pc, seen[f"attention {number}"][0])
            feed_forward[f"layer {number}"] = relative(fed_pc, seen[f"feed-forward {number}"][0])
        features = relative(ours.vision([image])[0], seen["features"][0])
        return {"attention in images": attention, "feed-forward in images": feed_forward, "features": {"": features}}

    def _theirs(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by Hugging Face name, as `names.plain_hf` spells it."""
        found = {}
        for name, value in tensors.items():
            stored = names.plain_hf(names.to_hf(name, True))
            if self._raw is not None:
                found[stored] = self._raw(stored).float()
            elif names.is_query_or_key(name):
                found[stored] = permute.native_to_hf(value, head_dim(name, self._config)).contiguous()
            else:
                found[stored] = value
        return found

    def _as_theirs(self, name: str, value: Tensor | Quantized) -> Tensor | Quantized:
        """A tensor whose rows no permutation moves, as transformers is given it."""
        return value if self._raw is None else self._raw(names.plain_hf(names.to_hf(name, True)))


@torch.inference_mode()
def compare_whole(path: Path, model: Model, ids_t: Tensor, made: int) -> tuple[float, int]:
    """The relative difference of the logits of `ids_t` between a float32 model and transformers' own reading of the
    files at `path`, and how many of `made` greedy tokens are the same before the first that is not.

    ValueError for a network that `config.json` has no words for.
    """
    import transformers

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        folder = path
        if _raw(path) is None:
            folder = Path(scratch)
            weights.save_hf(model, folder)
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        theirs = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
        wanted_tv = theirs(ids_t[None]).logits[0]
        mine = _greedy(lambda ids: _logits(model, ids), ids_t, made)
        other = _greedy(lambda ids: theirs(ids[None]).logits[0], ids_t, made)
    same = next((n for n, (one, two) in enumerate(zip(mine, other, strict=True)) if one != two), made)
    return relative(_logits(model, ids_t), wanted_tv), same


def _logits(model: Model, ids_t: Tensor) -> Tensor:
    return model.logits(model(ids_t, torch.arange(len(ids_t)), CausalAttention()))


def _greedy(logits: Callable[[Tensor], Tensor], ids_t: Tensor, made: int) -> list[int]:
    for _ in range(made):
        ids_t = torch.cat((ids_t, logits(ids_t)[-1:].argmax(-1)))
    return [int(token) for token in ids_t[-made:]]


def _raw(path: Path) -> Callable[[str], Tensor] | None:
    """Stored tensors of plain Hugging Face files by plain name; None where the checkpoint is not read from such."""
    native = quantized_files.is_quantized(path) or any(path.glob("consolidated*.safetensors"))
    if native or not ((path / "config.json").is_file() and any(path.glob("model*.safetensors"))):
        return None
    if json.loads((path / "config.json").read_text(encoding="utf-8")).get("quantization_config"):
        return None
    files = shards.contents(path, "model")
    stored = {names.plain_hf(name): name for name in files}
    return lambda plain: shards.read(files, stored[plain])


def _description(path: Path, config: ModelConfig) -> dict[str, Any]:
    """The folder's own config.json where its weights are read by it, else one written from the shape."""
    if _raw(path) is None:
        return config_json(config, "float32")
    said: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return said


def _text_model(description: dict[str, Any]) -> Any:
    """transformers' text network with one layer and next to no vocabulary."""
    import transformers

    text = dict(description.get("text_config") or description)
    text |= {"model_type": "mistral", "num_hidden_layers": 1, "vocab_size": 64, "torch_dtype": "float32"}
    text.pop("dtype", None)
    text.pop("layer_types", None)
    with _quiet():
        config = _configured(text)
        # Without memory for weights, which come a layer at a time; the angles are no weights.
        with torch.device("meta"):
            made: Any = transformers.MistralModel(config)
        made.rotary_emb = type(made.rotary_emb)(config=config)
        made.norm.load_state_dict({"weight": torch.ones(config.hidden_size)}, assign=True)
        return made.eval()


def _image_model(description: dict[str, Any]) -> Any:
    """transformers' image network and projector, with next to no text network behind it."""
    import transformers

    said = {name: value for name, value in description.items() if name not in ("dtype", "architectures")}
    small = {"num_hidden_layers": 1, "vocab_size": 64, "intermediate_size": 16, "head_dim": 2, "num_attention_heads": 1}
    text = {name: value for name, value in said["text_config"].items() if name not in ("dtype", "layer_types")}
    said["text_config"] = text | small | {"num_key_value_heads": 1}
    with _quiet():
        made: Any = transformers.Mistral3Model(_configured(said | {"torch_dtype": "float32"}))
        return made.eval()


def _configured(description: dict[str, Any]) -> Any:
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "config.json").write_text(json.dumps(description), encoding="utf-8")
        return transformers.AutoConfig.from_pretrained(scratch)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own bars and warnings: what matters is in the report."""
    import transformers.utils

    logging: Any = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|huggingface_hub)\.")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What comes out of modules, and their first input, without batch dims."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = inputs[0][0] if inputs and inputs[0].dim() == 3 else torch.empty(0)
            out = output[0] if isinstance(output, tuple) else output
            seen[name] = (out[0] if out.dim() == 3 else out, first)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _block(dim: int, heads: int, kv_heads: int, width: int, hidden: int, eps: float) -> Block:
    with torch.device("meta"):
        return Block(Attention(dim, heads, kv_heads, width), FeedForward(dim, hidden), dim, eps)


def _all(layer: int, q_phk: Tensor, k_phk: Tensor, v_phk: Tensor) -> Tensor:
    return reference.attention(q_phk[None], k_phk[None], v_phk[None])[0]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))
