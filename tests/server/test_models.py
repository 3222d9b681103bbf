"""Names mean the model that has them, and no other but by the operator's wish."""

import pytest

from magister.server.mock import MockChat
from magister.server.models import MAGISTRAL_SMALL, Models, NoModel, Served, canonical, settle
from magister.types import ChatRequest, Effort, Sampling, user
from magister.wire.dialect import Asked, Card
from magister.wire.fault import Kind

SEEDS = (
    "magistral-small-2509",
    "magistral-small-1.2",
    "mistral/magistral-small-2509",
    "mistralai/magistral-small-2509",
    "mistralai/Magistral-Small-2509",
    "magistral-small",
    "mistralai:mistralai/magistral-small-latest",
    "models/magistral-small-2509",
)


def served(name: str, **defaults: object) -> Served:
    return Served(card=Card(name=name, created=0, context=1024), chat=MockChat(), defaults=defaults)


@pytest.mark.parametrize("name", SEEDS)
def test_names_of_the_seeds_mean_magistral_small_and_nothing_else(name: str) -> None:
    assert canonical(name) == MAGISTRAL_SMALL
    real = served(MAGISTRAL_SMALL)
    assert Models([served("nano"), real]).resolve(name).served is real
    with pytest.raises(NoModel) as told:
        Models([served("nano")]).resolve(name)
    assert told.value.fault.kind is Kind.NO_MODEL
    assert "magister pull magistral-small-2509" in told.value.fault.message
    assert f"--answer {name}=nano" in told.value.fault.message


def test_the_only_substitution_is_the_operators() -> None:
    models = Models([served("nano")], {"magistral-small-2509": "nano"})
    found = models.resolve("mistralai/magistral-small-2509:high")
    assert found.served.card.name == "nano"
    assert found.instead_of == "mistralai/magistral-small-2509"
    assert found.effort is Effort.HIGH
    assert models.resolve("nano").instead_of == ""
    with pytest.raises(ValueError, match=r"--answer a=b: 'b' is not served; served: nano"):
        Models([served("nano")], {"a": "b"})
    with pytest.raises(ValueError, match=r"--answer nano=nano: 'nano' is served itself"):
        Models([served("nano")], {"nano": "nano"})


def test_medium_was_never_published() -> None:
    with pytest.raises(NoModel, match="never published"):
        Models([served("nano")]).resolve("mistralai/magistral-medium-2509")


def test_a_suffix_is_an_effort_only_where_the_name_is_none_itself() -> None:
    odd = served("nano:high")
    assert Models([served("nano"), odd]).resolve("nano:high").served is odd
    assert Models([served("nano")]).resolve("nano:low").effort is Effort.LOW
    with pytest.raises(NoModel):
        Models([served("nano")]).resolve("nano:loud")


def test_an_empty_name_means_the_only_model() -> None:
    only = served("nano")
    assert Models([only]).resolve("").served is only
    with pytest.raises(NoModel):
        Models([only, served("other")]).resolve("")


def test_the_models_own_defaults_fill_what_the_client_left_open() -> None:
    models = Models([served("nano", temperature=0.0, top_p=0.5)])
    chat = ChatRequest(messages=(user("hi"),), model="nano:low", sampling=Sampling(top_p=0.9))
    asked = Asked(chat=chat, given=frozenset({"top_p"}))
    request = settle(asked, models.resolve("nano:low"), keep_thinking=False)
    assert (request.sampling.temperature, request.sampling.top_p) == (0.0, 0.9)
    assert (request.model, request.effort, request.keep_thinking) == ("nano", Effort.LOW, False)
