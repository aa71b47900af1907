"""Every situation torchvision can be met in, each in a process of its own.

Three torchvisions are built from the installed one's Python files: ``unloadable`` (its binary cannot be loaded, as
with the ordinary wheel beside a CPU-only torch), ``bare`` (no binary) and ``healthy`` (a binary compiled here, which
declares its operators itself). So the tests mean the same on every machine.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TORCHVISION = Path(str((find_spec("torchvision") or pytest.fail("torchvision is not installed")).origin)).parent

# The real wheel's operators, without code but for two: `_cuda_version`, which is asked for at import, and an `nms` that
# keeps every box, best score first, so that one can see whose it is.
HEALTHY_CPP = """
#include <torch/library.h>

at::Tensor keep_all(const at::Tensor& dets, const at::Tensor& scores, double) { return scores.argsort(0, true); }
int64_t no_cuda() { return -1; }

#define ROI "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
#define SIZE "int pooled_height, int pooled_width, int batch_size, int channels, int height, int width"
#define CONV "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, " \\
    "int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, bool use_mask"

TORCH_LIBRARY(torchvision, m) {
    m.def("_cuda_version", &no_cuda);
    m.def("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor");
    m.def("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor");
    m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor");
    m.def("roi_align(" ROI ", int sampling_ratio, bool aligned) -> Tensor");
    m.def("qroi_align(" ROI ", int sampling_ratio, bool aligned) -> Tensor");
    m.def("roi_pool(" ROI ") -> (Tensor, Tensor)");
    m.def("ps_roi_align(" ROI ", int sampling_ratio) -> (Tensor, Tensor)");
    m.def("ps_roi_pool(" ROI ") -> (Tensor, Tensor)");
    m.def("deform_conv2d(" CONV ") -> Tensor");
    m.def("_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, " SIZE
          ", int sampling_ratio, bool aligned) -> Tensor");
    m.def("_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, " SIZE ") -> Tensor");
    m.def("_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
          "int pooled_height, int pooled_width, int sampling_ratio, int batch_size, int channels, int height, "
          "int width) -> Tensor");
    m.def("_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, " SIZE
          ") -> Tensor");
    m.def("_deform_conv2d_backward(Tensor grad, " CONV ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(torchvision, CPU, m) { m.impl("nms", &keep_all); }
"""

BOXES = "torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8]]), torch.tensor([0.1, 0.9]), 0.5"

CLEAR_ERROR = f"""
import torch
try:
    torchvision.ops.nms({BOXES})
except RuntimeError as error:
    assert "Couldn't load custom C++ ops" in str(error), error
else:
    raise AssertionError("nms ran without its binary")
"""


def link_torchvision(folder: Path) -> Path:
    """A copy of the installed torchvision, by links, without its binaries; returns the package's folder."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    for entry in TORCHVISION.iterdir():
        if entry.suffix not in (".so", ".pyd", ".dll") and entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    return package


@pytest.fixture(scope="module")
def unloadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unloadable")
    (link_torchvision(folder) / "_C.so").write_bytes(b"not a library")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    link_torchvision(folder)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: install g++ to simulate a torchvision whose binary loads")
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = tmp_path_factory.mktemp("healthy")
    source = folder / "healthy.cpp"
    source.write_text(HEALTHY_CPP)
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    torch_ = [f"-I{path}" for path in include_paths()] + [f"-L{path}" for path in library_paths()]
    target = link_torchvision(folder) / "_C.so"
    command = [compiler, "-std=c++20", "-O0", "-w", "-shared", "-fPIC", abi, source, "-o", target, *torch_]
    subprocess.run([*command, "-ltorch_cpu", "-lc10"], check=True)
    return folder


def python(code: str, folder: Path | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds ``folder``'s torchvision, or else the installed one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder or "")}
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )


def succeeds(code: str, folder: Path | None = None, *options: str) -> None:
    ended = python(code, folder, *options)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_without_the_shim_torchvision_does_not_import(unloadable: Path) -> None:
    """The reason for it all; when this fails, torchvision has mended itself and ``_compat.py`` can go."""
    ended = python("import torchvision", unloadable)
    assert ended.returncode == 1
    assert "operator torchvision::nms does not exist" in ended.stderr


@pytest.mark.parametrize("library", ["timm", "segmentation_models_pytorch"])
def test_a_library_imports_after_eosin(library: str, unloadable: Path) -> None:
    succeeds(
        f"import eosin, sys; assert 'torch' not in sys.modules; import {library}, torchvision; "
        f"assert torchvision.__file__.startswith({str(unloadable)!r}); assert 'torch' in sys.modules",
        unloadable,
    )


OPTIONAL = [
    name for name in ("accelerate", "torchmetrics", "transformers", "diffusers", "tensorboard") if find_spec(name)
]


@pytest.mark.parametrize("library", OPTIONAL)
def test_a_library_that_may_touch_torchvision_imports_after_eosin(library: str, unloadable: Path) -> None:
    succeeds(f"import eosin, {library}", unloadable)


def test_transforms_and_models_run_and_missing_operators_say_so(unloadable: Path) -> None:
    succeeds(
        "import eosin, torch, torchvision\n"
        "from torchvision.transforms import v2\n"
        "image = torch.rand(3, 32, 32)\n"
        "moved = v2.Compose([v2.ColorJitter(0.5), v2.GaussianBlur(3)])(image)\n"
        "assert moved.shape == image.shape and not moved.equal(image)\n"
        "assert torchvision.models.resnet18().eval()(image[None]).shape == (1, 1000)\n" + CLEAR_ERROR,
        unloadable,
    )


def test_a_torchvision_without_any_binary_imports(bare: Path) -> None:
    succeeds("import eosin, torchvision\n" + CLEAR_ERROR, bare)


def test_a_healthy_torchvision_keeps_its_own_operators(healthy: Path) -> None:
    succeeds(
        "import eosin, torchvision, torch\n"
        f"assert torchvision.ops.nms({BOXES}).tolist() == [1, 0]\n"
        "assert torchvision.extension._has_ops() and not eosin._compat._kept\n",
        healthy,
        "-W",
        "error",
    )
    # The simulation has teeth: declaring first, which the shim avoids, ends the process, and nothing can catch it.
    ended = python(
        "import eosin\n"
        "eosin._compat._declare_missing()\n"
        "try:\n    import torchvision\nexcept BaseException:\n    print('caught')\n",
        healthy,
    )
    assert ended.returncode == -signal.SIGABRT, ended.stderr[-2000:]
    assert "caught" not in ended.stdout


def test_an_earlier_failed_import_is_mended(unloadable: Path) -> None:
    succeeds(
        "import sys\n"
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        "assert 'torchvision.extension' in sys.modules and 'torchvision' not in sys.modules\n"
        "import eosin, timm\n" + "import torchvision\n" + CLEAR_ERROR,
        unloadable,
    )


def test_the_hook_is_put_in_once_and_takes_itself_out_and_probing_has_no_effect(unloadable: Path) -> None:
    succeeds(
        "import sys\n"
        "from importlib.util import find_spec\n"
        "before = list(sys.meta_path)\n"
        "import eosin\n"
        "eosin._compat.install()\n"
        "assert len(sys.meta_path) == len(before) + 1 and sys.meta_path[1:] == before\n"
        "assert find_spec('torchvision').name == find_spec('torchvision').name == 'torchvision'\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules\n"
        "import torchvision\n"
        "eosin._compat.install()\n"
        "assert sys.meta_path == before\n"
        "assert 'exec_module' not in vars(torchvision.__spec__.loader)\n",
        unloadable,
    )


def test_torchvision_absent_is_an_ordinary_error() -> None:
    succeeds(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Without:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        return None if name == 'torchvision' else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Without\n"
        "import eosin\n"
        "from importlib.util import find_spec\n"
        "assert find_spec('torchvision') is None\n"
        "for _ in range(2):\n"
        "    try:\n        import torchvision\n"
        "    except ModuleNotFoundError as error:\n        assert error.name == 'torchvision'\n"
        "    else:\n        raise AssertionError('found')\n"
        "assert 'torch' not in sys.modules\n"
    )


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_child_processes_import_the_installed_torchvision(start: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, os, sys\n"
        "import eosin\n"
        "def child():\n"
        "    import torchvision\n"
        "    print(os.getpid(), torchvision.__file__, flush=True)\n"
        "if __name__ == '__main__':\n"
        f"    process = multiprocessing.get_context({start!r}).Process(target=child)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print(os.getpid(), 'torchvision' in sys.modules, flush=True)\n"
        "    sys.exit(process.exitcode)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
    (child, file), (parent, loaded) = (line.split(maxsplit=1) for line in ended.stdout.splitlines())
    assert child != parent and Path(file).parent == TORCHVISION and loaded == "False"


def test_importing_eosin_loads_nothing_heavy() -> None:
    succeeds(
        "import eosin, sys\n"
        "heavy = {'torch', 'numpy', 'torchvision', 'pydantic', 'PIL', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert eosin.__version__ and {'run', 'Predictor'} <= set(dir(eosin))\n"
        "assert not hasattr(eosin, 'no_such_name')\n"
    )


def test_the_help_page_loads_no_torch() -> None:
    succeeds(
        "import sys\n"
        "sys.argv = ['eosin', '--help']\n"
        "from eosin.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
