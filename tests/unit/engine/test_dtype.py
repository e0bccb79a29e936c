"""The number format on a CPU: what differs from the configuration is never silent."""

import pytest

from lowmem_rl.config.run_config import ModelConfig, RunConfig
from lowmem_rl.engine.device import check_dtype, cpu_device, device_of, dtype_fault
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import find_card


def test_a_cpu_says_that_it_has_no_float16() -> None:
    config = RunConfig(model=ModelConfig(dtype="float16"))
    assert dtype_fault(config, cpu_device(config)) == "model.dtype = 'float16': a CPU computes in float32"
    with pytest.raises(ConfigError, match="a CPU computes in float32"):
        check_dtype(config, cpu_device(config))
    check_dtype(config, device_of(find_card("t4"), config))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_what_a_cpu_has_is_taken_as_written(dtype: str) -> None:
    config = RunConfig.model_validate({"model": {"dtype": dtype}})
    check_dtype(config, cpu_device(config))
