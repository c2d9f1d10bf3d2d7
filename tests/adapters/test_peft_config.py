"""adapter_config.json as PEFT writes it."""

import pytest
from helpers.adapter_files import change

from mlx_aimv2.adapters.adapter_folder import AdapterFolder
from mlx_aimv2.adapters.peft_config import PeftConfig
from mlx_aimv2.errors import ConfigError


def test_names_of_modules_mean_what_they_mean_in_peft():
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    in_layer, in_head = "encoder.layers.1.attention.k_proj", "head.k_proj"

    def names(**values):
        config = PeftConfig.from_dict({**plain, **values}, "it")
        return config.adapts(in_layer), config.adapts(in_head)

    assert names(target_modules=["k_proj"]) == (True, True)
    assert names(target_modules=["attention.k_proj"]) == (True, False)
    assert names(target_modules=["_proj"]) == (False, False)
    assert names(target_modules=["head.k_proj"]) == (False, True)
    assert names(target_modules="all-linear") == (True, True)
    assert names(target_modules=r".*attention\.k_proj") == (True, False)
    assert names(target_modules="k_proj") == (False, False)  # a pattern is for the whole name
    assert names(target_modules=["k_proj"], layers_to_transform=[1]) == (True, False)
    assert names(target_modules=["k_proj"], layers_to_transform=0) == (False, False)
    assert names(target_modules=["k_proj"], layers_to_transform=1, layers_pattern="blocks") == (False, False)
    assert names(target_modules=["k_proj"], exclude_modules=["head.k_proj"]) == (True, False)
    assert names(target_modules=["k_proj"], exclude_modules=r"encoder\..*") == (False, True)
    assert names() == (False, False)
    config = PeftConfig.from_dict(
        {**plain, "rank_pattern": {"head.k_proj": 2}, "alpha_pattern": {"k_proj": 3}}, "it"
    )
    assert (config.rank_of(in_head), config.rank_of(in_layer), config.alpha_of(in_layer)) == (2, 4, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', and only LORA"),
        ({"peft_type": None}, "peft_type is None, and only LORA"),
        ({"bias": "all"}, "bias is 'all': biases of the base, trained too, cannot be read here"),
        (
            {"modules_to_save": ["head"]},
            r"modules_to_save is \['head'\]: whole modules trained beside the adapter",
        ),
        ({"lora_bias": True}, "lora_bias is True: a bias in B cannot be read here"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True: transposed weights"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is .*: layers that are used several times"),
        ({"target_parameters": ["weight"]}, "target_parameters is .*: parameters adapted by name"),
        ({"use_qalora": True}, "use_qalora is True: QALoRA cannot be read here"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights is 'pissa_niter_4', which changes the base too",
        ),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"r": 0}, "r is 0, but has to be a whole number from 1 to 16384"),
        ({"r": 10**9}, "but has to be a whole number from 1 to 16384"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', but has to be a finite number above 0"),
        ({"lora_alpha": -1}, "lora_alpha is -1, but has to be"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0, but has to be a number from 0 to below 1"),
        ({"use_dora": "yes"}, "use_dora is 'yes', but has to be true or false"),
        ({"target_modules": {"q": 1}}, "target_modules is .*, but has to be a list of names, or a pattern"),
        ({"target_modules": ["q", 1]}, "target_modules is .*, but has to be a list of names, or a pattern"),
        ({"target_modules": "(q"}, r"target_modules is '\(q', but has to be a regular expression \(missing"),
        ({"target_modules": "(a+)+b"}, "has to be simpler: no repeated groups"),
        ({"target_modules": ".*" * 9}, "no more than 4 repetitions"),
        ({"target_modules": "q" * 1001}, "has to be simpler"),
        ({"exclude_modules": "(a|a)*"}, "exclude_modules is .*, but has to be simpler"),
        ({"rank_pattern": {"(a+)+": 3}}, "rank_pattern is .*, but has to be simpler"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern of 'q_proj' is 0, but has to be a whole number"),
        ({"rank_pattern": [3]}, r"rank_pattern is \[3\], but has to be an object"),
        (
            {"alpha_pattern": {"q_proj": None}},
            "alpha_pattern of 'q_proj' is None, but has to be a finite number",
        ),
        ({"layers_to_transform": "last"}, "layers_to_transform is 'last', but has to be a number or a list"),
        ({"layers_to_transform": [1.5]}, "has to be a number or a list of numbers of layers"),
        ({"layers_pattern": "(.*)*"}, "layers_pattern is .*, but has to be one name or a list of names"),
    ],
)
def test_what_cannot_be_read_is_one_line(adapter, values, message):
    change(adapter, **values)
    with pytest.raises(ConfigError, match=message) as caught:
        AdapterFolder.read(adapter)
    assert "adapter_config.json" in str(caught.value) and "\n" not in str(caught.value)
