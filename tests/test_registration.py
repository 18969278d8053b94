import sys

import pytest
from transformers import AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

import fast_jukebox
from fast_jukebox import registration


@pytest.mark.parametrize(
    "first",
    [
        "fast_jukebox.generation.request", "fast_jukebox.models.adapters", "fast_jukebox.models.loading",
        "fast_jukebox.models.weight_files", "fast_jukebox.models.prior.modeling_prior", "fast_jukebox_cli.generate",
    ],
)  # fmt: skip
def test_any_module_may_be_imported_first_and_the_models_are_registered_then(run_afresh, first):
    code = (
        f"import {first}\nfrom transformers import AutoConfig\nprint(AutoConfig.for_model('fast_jukebox').model_type)"
    )
    assert run_afresh(code)[0].split() == ["fast_jukebox"]


@pytest.mark.parametrize(
    "model", [fast_jukebox.FastJukeboxVQVAE, fast_jukebox.FastJukeboxPrior, fast_jukebox.FastJukeboxModel]
)
def test_the_auto_classes_know_the_models(model):
    config = model.config_class
    assert CONFIG_MAPPING[config.model_type] is config
    assert isinstance(AutoConfig.for_model(config.model_type), config)
    assert AutoModel._model_mapping[config] is model
    assert config.model_type.startswith("fast_jukebox")


def test_the_task_is_known():
    assert "fast-jukebox" in PIPELINE_REGISTRY.get_supported_tasks()
    targeted = PIPELINE_REGISTRY.supported_tasks["fast-jukebox"]
    assert targeted["impl"] is fast_jukebox.FastJukeboxPipeline


def test_registering_again_is_harmless(caplog):
    finders = len(sys.meta_path)
    registration.register()
    registration.register()
    assert len(sys.meta_path) == finders
    assert not caplog.records


@pytest.mark.parametrize(
    "first",
    [
        "import fast_jukebox", "from transformers import pipeline", "import fast_jukebox.pipelines",
        "import fast_jukebox_cli.merge",
    ],
)  # fmt: skip
def test_the_task_is_registered_whichever_is_imported_first(run_afresh, first):
    code = f"""
import sys
{first}
import fast_jukebox
def waiting():
    ours = [finder for finder in sys.meta_path if type(finder).__module__.startswith("fast_jukebox")]
    return [finder.name for finder in ours if finder.name == "transformers.pipelines"]

assert len(waiting()) == ("transformers.pipelines" not in sys.modules), waiting()
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY
assert not waiting()
print(PIPELINE_REGISTRY.check_task("fast-jukebox")[1]["impl"].__name__)
"""
    assert run_afresh(code)[0].split() == ["FastJukeboxPipeline"]
