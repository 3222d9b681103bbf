"""Which library is chosen, what is said when none can be, and what the C interface refuses."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tests.kernels.libraries import builder, library

from magister.kernels import cpu, cpu_check, cpu_library
from magister.kernels.quantized import Format, Quantized

XEON = "fpu sse2 avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512_vnni"


def stub(folder: Path, isa: str, abi: int = 1, refuses: bool = False) -> Path:
    """A library that has every function and computes nothing; with `refuses` it makes no matrix."""
    compiler = builder().find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    functions = [f"long {name}(void) {{ return 0; }}" for name in cpu_library.SIGNATURES]
    text = "\n".join(functions).replace("mg_abi(void) { return 0;", f"mg_abi(void) {{ return {abi};")
    for name in () if refuses else ("linear", "decoder", "cache"):
        text = text.replace(f"mg_{name}_new(void) {{ return 0;", f"mg_{name}_new(void) {{ return 1;")
    text = text.replace("long mg_error(void) { return 0;", 'const char* mg_error(void) { return "no such thing";')
    text = text.replace("long mg_isa(void) { return 0;", f'const char* mg_isa(void) {{ return "{isa}";')
    source, made = folder / f"{isa}.cpp", folder / f"magister-{isa}.so"
    source.write_text(f'extern "C" {{\n{text}\n}}\n', encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    return made


@pytest.mark.parametrize(
    ("line", "best"),
    [
        (f"flags\t\t: {XEON}", ["avx512", "avx2", "generic"]),
        ("flags\t\t: fpu sse2 avx2 fma f16c avx512f", ["avx2", "generic"]),
        ("flags\t\t: fpu sse2", ["generic"]),
        ("Features\t: fp asimd asimdhp asimddp", ["neon", "generic"]),
        ("", ["generic"]),
    ],
)
def test_flags_say_what_can_run(line: str, best: list[str]) -> None:
    assert cpu.supported(cpu.cpu_flags(f"processor\t: 0\n{line}\n")) == best


def test_every_library_that_can_be_chosen_can_be_built() -> None:
    assert set(builder().isas("x86_64")) | set(builder().isas("aarch64")) == set(cpu.NEEDS)


def test_unknown_instruction_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="isa is sse9, must be one of"):
        cpu.choose("sse9")
    with pytest.raises(ValueError, match="isa is sse9, must be one of"):
        builder().build("sse9")


def test_without_libraries_the_description_says_so(tmp_path: Path) -> None:
    choice = cpu.choose(folder=tmp_path)
    assert choice.library is None
    assert choice.description.startswith("no compiled kernels, plain torch instead: ")
    assert "generic is not built" in choice.description
    with pytest.raises(ValueError, match=r"isa is generic, but .* is not built"):
        cpu.choose("generic", folder=tmp_path)


def test_the_best_library_passes_its_self_test() -> None:
    built = library()
    choice = cpu.choose(folder=built.path.parent)
    assert choice.library is not None
    assert choice.library.isa == cpu.supported()[0]
    assert choice.description == f"compiled kernels: {choice.library.isa}"
    assert cpu.choose(choice.library.isa, folder=built.path.parent).description.endswith("as asked for")


def test_a_library_that_computes_wrongly_is_passed_over_and_named(tmp_path: Path) -> None:
    stub(tmp_path, "generic")
    assert "float32 product of 1 rows is off by" in cpu_check.faults(cpu.load("generic", tmp_path))[0]
    choice = cpu.choose(folder=tmp_path)
    assert choice.library is None
    assert "generic fails its self-test (float32 product of 1 rows is off by" in choice.description
    with pytest.raises(ValueError, match="isa is generic, but its self-test failed"):
        cpu.choose("generic", folder=tmp_path)


def test_a_library_that_refuses_its_self_test_is_named_and_the_next_is_tried(tmp_path: Path) -> None:
    best, *others = cpu.supported()
    if not others:
        pytest.skip("this CPU has one instruction set")
    stub(tmp_path, best, refuses=True)
    shutil.copy(library("generic").path, tmp_path)
    choice = cpu.choose(folder=tmp_path)
    assert choice.library is not None
    assert choice.library.isa == "generic"
    assert f"{best} fails its self-test (ValueError: no such thing)" in choice.description
    with pytest.raises(ValueError, match=f"isa is {best}, but its self-test failed: ValueError: no such thing"):
        cpu.choose(best, folder=tmp_path)


def test_no_memory_is_said_as_torch_says_it() -> None:
    lib = library()
    with pytest.raises(RuntimeError):
        torch.empty(1 << 46)
    packed = lib.linear(torch.zeros(4, 16))
    code = lib.c.mg_linear_prepare(packed._handle, torch.zeros(16).data_ptr(), 1 << 44)
    with pytest.raises(RuntimeError, match="the system gave no memory"):
        lib.check(code)


def test_libraries_of_another_version_and_broken_files_are_named(tmp_path: Path) -> None:
    stub(tmp_path, "generic", abi=77)
    assert "has interface 77" in cpu.choose(folder=tmp_path).description
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "magister-generic.so").write_bytes(b"not a library")
    assert "generic does not load" in cpu.choose(folder=broken).description


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="false failed on"):
        builder().build("generic", tmp_path, compiler="false")
    assert list(tmp_path.rglob("*.so")) == []


def test_matrices_without_a_kernel_are_refused() -> None:
    lib = library()
    with pytest.raises(ValueError, match=r"a matrix is torch\.int32, must be"):
        lib.linear(torch.zeros(4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="a matrix has two dimensions, not 1"):
        lib.linear(torch.zeros(4))
    with pytest.raises(ValueError, match="a matrix of 0 by 4 is none"):
        lib.linear(torch.zeros(0, 4))
    with pytest.raises(ValueError, match=r"x has shape \[2, 5\], the matrix takes \[rows, 4\]"):
        lib.linear(torch.zeros(3, 4))(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="group is 24, must be a multiple of 16"):
        lib.quantize_rows(torch.zeros(2, 48), 24)
    part = lib.linear(torch.zeros(3, 4)).prepare(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="rows 0 to 3 of 2"):
        part(torch.zeros(2, 3), (0, 3), (0, 1))
    with pytest.raises(ValueError, match="panels 0 to 2 of 1"):
        part(torch.zeros(2, 3), (0, 2), (0, 2))


def test_float16_is_kept_exactly() -> None:
    matrix = torch.randn(5, 7).half()
    packed = library().linear(matrix)
    assert torch.equal(packed(torch.eye(7)), matrix.float().t())
    packed.close()
    packed.close()


def test_packed_bytes_are_those_of_the_format() -> None:
    lib, scales = library(), torch.ones(64, 8)
    sizes = {
        "float32": lib.linear(torch.zeros(64, 256)).bytes,
        "bfloat16": lib.linear(torch.zeros(64, 256, dtype=torch.bfloat16)).bytes,
        "int8": lib.linear(Quantized(Format.INT8, torch.zeros(64, 256, dtype=torch.int8), scales, 32)).bytes,
    }
    assert sizes["float32"] == 64 * 256 * 4
    assert sizes["bfloat16"] == 64 * 256 * 2
    assert 64 * 256 + 64 * 8 * 4 <= sizes["int8"] < 64 * 256 * 2
