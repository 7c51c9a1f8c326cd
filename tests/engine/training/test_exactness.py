import jax
import pytest

from budgetflow.engine.training.exactness import compiler_options, settings


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_gpus_are_told_to_give_the_same_bits_each_time():
    assert compiler_options("gpu") == {"xla_gpu_deterministic_ops": True}
    assert compiler_options("cpu") is None
    assert compiler_options("tpu") is None


@pytest.mark.parametrize("value", ["true", "false"])
def test_who_sets_the_flag_has_chosen(monkeypatch, value):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x --xla_gpu_deterministic_ops={value}")
    assert compiler_options("gpu") is None
    assert settings() == {"XLA_FLAGS": [f"xla_gpu_deterministic_ops={value}"]}


def test_xla_knows_the_flag():
    options = compiler_options("gpu")
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_deterministic": True})(1)


def test_only_what_changes_results_and_is_not_the_default_is_a_setting(monkeypatch):
    assert settings() == {}
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=true"
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert settings() == {"XLA_FLAGS": ["xla_cpu_enable_fast_math=true"]}
    monkeypatch.delenv("XLA_FLAGS")
    with jax.default_matmul_precision("float32"), jax.numpy_dtype_promotion("strict"):
        assert settings() == {
            "jax_default_matmul_precision": "float32",
            "jax_numpy_dtype_promotion": "strict",
        }
