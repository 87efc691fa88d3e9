from pathlib import Path

import pytest

from jobs.configuration import load_config
from mian.config import TrainConfig
from mian.contract import ContractError
from mian.models import MODELS, ClickModel, Mian, MianConfig, ModelError, build, model_columns
from tests.factories import BEHAVIORS, CONTRACTS, USER, make_contract

CONFIGURATIONS = Path(__file__).parents[3] / "conf" / "train"
OF_HISTORIES = ("din", "dien")  # a contract without behaviors is none of theirs
FITTING = [(name, of) for name in MODELS for of in CONTRACTS if name not in OF_HISTORIES or CONTRACTS[of].group("behaviors")]


def test_a_model_is_built_by_name_from_a_contract_and_options(contract):
    model = build("mian", contract, {"embedding_dim": 4, "mlp": [16, 4]})
    assert isinstance(model, Mian)
    assert model.config == MianConfig(embedding_dim=4, mlp=(16, 4))


@pytest.mark.parametrize(("name", "contract_name"), FITTING)
def test_every_model_scores_every_contract_with_its_defaults(make_batch, name, contract_name):
    model = build(name, CONTRACTS[contract_name], {})
    assert isinstance(model, ClickModel)
    assert model(make_batch(CONTRACTS[contract_name])).shape == (16,)


@pytest.mark.parametrize(("name", "contract_name"), FITTING)
def test_a_model_reads_the_columns_that_it_names_and_no_others(make_batch, name, contract_name):
    contract = CONTRACTS[contract_name]
    read = set()

    class Recorded(dict):
        def __getitem__(self, column):
            read.add(column)
            return super().__getitem__(column)

    build(name, contract, {})(Recorded(make_batch(contract)))
    columns = model_columns(name, contract, {})
    assert read == set(columns)
    assert len(read) == len(columns)


@pytest.mark.parametrize("name", OF_HISTORIES)
@pytest.mark.parametrize(
    ("contract", "lacks"),
    [(CONTRACTS["no behaviors"], "no behaviors"), (make_contract(*BEHAVIORS, *USER), "no candidate field")],
    ids=["no behaviors", "no candidate"],
)
def test_a_model_of_histories_refuses_a_contract_without_them_and_says_what_to_do(name, contract, lacks):
    with pytest.raises(ContractError, match=rf"contract 'small' has {lacks}, .* or take a model that does without"):
        build(name, contract, {})


def test_an_option_of_another_model_is_an_error_that_names_what_there_is(contract):
    with pytest.raises(ModelError, match=r"model 'lr' has no option 'global_fusion'; there are init_std"):
        build("lr", contract, {"global_fusion": "project"})


def test_an_unknown_name_is_an_error_that_names_the_nearest(contract):
    with pytest.raises(ModelError, match=r"there is no model 'main'; did you mean 'mian'\?"):
        build("main", contract, {})
    with pytest.raises(ModelError, match=r"there is no model 'main'; did you mean 'mian'\?"):
        model_columns("main", contract, {})
    with pytest.raises(ModelError, match=r"there is no model 'xgboost'; there are dcn, dcn_v2, deepfm"):
        build("xgboost", contract, {})


def test_an_unknown_option_is_an_error_that_names_the_nearest(contract):
    with pytest.raises(ModelError, match=r"model 'mian' has no option 'embeding_dim'; did you mean 'embedding_dim'\?"):
        build("mian", contract, {"embeding_dim": 4})


def test_a_value_that_is_not_allowed_is_an_error_that_names_option_and_value(contract):
    with pytest.raises(ModelError, match=r"model 'mian', option 'heads': .*greater than 0.*; it is -1"):
        build("mian", contract, {"heads": -1})


@pytest.mark.parametrize(
    ("name", "option"), [("xdeepfm", "cin"), ("mian_plus", "cin"), ("mian_plus", "unit"), ("din", "unit"), ("dien", "unit")]
)
def test_a_network_without_layers_is_an_error_that_names_the_option(contract, name, option):
    with pytest.raises(ModelError, match=rf"model '{name}', option '{option}': .*at least 1 item.*; it is \[\]"):
        build(name, contract, {option: []})


@pytest.mark.parametrize("file", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_configuration_names_a_model_and_options_of_its(contract, file):
    choice = load_config(TrainConfig, str(file)).model
    build(choice.name, contract, choice.options)


@pytest.mark.parametrize("name", MODELS)
def test_one_word_chooses_the_model(contract, name):
    choice = load_config(TrainConfig, str(CONFIGURATIONS / "peers.yaml"), [f"model.name={name}"]).model
    assert isinstance(build(choice.name, contract, choice.options), ClickModel)


def test_one_word_does_not_choose_a_model_with_options_of_another(contract):
    choice = load_config(TrainConfig, str(CONFIGURATIONS / "mian.yaml"), ["model.name=din"]).model
    with pytest.raises(ModelError, match=r"model 'din' has no option 'global_fusion'; there are activation, dropout"):
        build(choice.name, contract, choice.options)
