"""Reading a stored program without running what someone may have put into the file.

``torch.export.load`` trusts its file: it unpickles members, loads shared libraries, evaluates symbolic sizes as Python
(``sympify``), looks operators up by any dotted path below ``torch`` (``torch.os.system`` is one), and executes Python
that it generates from the names in the graph and from stored guards. So nothing reaches it that was not recognised
here: only raw weights and JSON, in which every text is a plain name, a known operator or a size formula. What was
recognised is copied into a new archive and that one is loaded, so that no difference between two zip readers matters.

This keeps code out. It does not bound what the arithmetic of a hostile graph costs.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from typing import Any

import torch
from torch.export import ExportedProgram

from eosin.core.errors import EosinError

_PICKLED = "data/sample_inputs/model.pt"
_MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)",
    re.ASCII,
)
_NAME = re.compile(r"([A-Za-z_]\w*)?", re.ASCII)
_DOTTED = re.compile(r"[\w.]*", re.ASCII)
_TEXTS = {
    "fqn": _DOTTED,
    "parameter_name": _DOTTED,
    "buffer_name": _DOTTED,
    "tensor_constant_name": _DOTTED,
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
    "as_float": re.compile(r"-?Infinity|NaN"),
    # Modes of gelu, padding and division, the device of autocast, and the equations of einsum.
    "as_string": re.compile(r"none|tanh|constant|reflect|replicate|circular|floor|trunc|cpu|[A-Za-z,. ]+->[A-Za-z. ]*"),
}
# One tensor in, one tensor out.
_SPECS = {
    "in_spec": [1, {"type": "builtins.tuple", "context": "null", "children_spec": [
        {"type": "builtins.tuple", "context": "null", "children_spec": [
            {"type": None, "context": None, "children_spec": []}]},
        {"type": "builtins.dict", "context": "[]", "children_spec": []}]}],
    "out_spec": [1, {"type": None, "context": None, "children_spec": []}],
}  # fmt: skip
_EMPTY = {"metadata", "guards_code", "custom_obj_values", "treespec_namedtuple_fields", "use_pickle"}
_ABSENT = {"as_custom_obj", "custom_obj", "as_operator"}
_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|getitem)|torch\.sym_(int|float|max|min|not)"
    r"|torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)"
)
# TorchScript's own operators live in the same namespace; these two touch files.
_FILES = {"from_file", "save"}
_SIZES = re.compile(
    r"Symbol|Integer|Add|Mul|Max|Min|Equality|Unequality|(Strict)?(Less|Greater)Than|Not|And|Or|FloorDiv|CeilDiv|CleanDiv"
    r"|(Python)?Mod|ModularIndexing"
)


class Unsafe(EosinError):
    """A program file that holds something other than weights and a graph of tensor operators."""


def read_program(data: bytes) -> ExportedProgram:
    """Check the content of a ``program.pt2`` and load it.

    Args:
        data: the file's bytes.

    Raises:
        Unsafe: if it holds anything that could run code, or is no such program at all; the message has no file name.
    """
    clean = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(clean, "w") as target:
            for name, content in _members(source):
                target.writestr(f"archive/{name}", content)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise Unsafe(f"not a readable archive ({error})") from None
    clean.seek(0)
    try:
        return torch.export.load(clean)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        # The named types are what torch raises on graphs that it cannot rebuild.
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Unsafe(f"torch {torch.__version__} cannot rebuild the program ({line:.120})") from None


def _members(source: zipfile.ZipFile) -> list[tuple[str, bytes]]:
    """The recognised members, without the archive's root folder in their names."""
    found: dict[str, bytes] = {}
    for info in source.infolist():
        name = info.filename.partition("/")[2]
        if name in found or info.compress_type != zipfile.ZIP_STORED:
            raise Unsafe(f"member {info.filename!r} is doubled or compressed")
        if name == _PICKLED:
            if info.file_size:
                raise Unsafe(f"member {info.filename!r} is a pickle, which can run code")
        elif not _MEMBER.fullmatch(name):
            raise Unsafe(f"member {info.filename!r} is neither weights nor graph and could run code")
        content = source.read(info)
        if name.endswith(".json"):
            content = json.dumps(_checked(content, name)).encode()
        found[name] = content
    return list(found.items())


def _checked(content: bytes, name: str) -> Any:
    try:
        value = json.loads(content)
        _walk(value, "")
    except (ValueError, RecursionError):
        raise Unsafe(f"member {name!r} is not the JSON of a graph") from None
    return value


def _walk(value: Any, key: str) -> None:
    """Refuse every value that is not known to be harmless; ``key`` is the nearest key above it."""
    if isinstance(value, dict):
        for inner, item in value.items():
            if (inner in _EMPTY and item) or inner in _ABSENT:
                raise Unsafe(f"the graph has {inner!r}, which can run code")
            if not _DOTTED.fullmatch(inner):
                raise Unsafe(f"the graph has the name {inner!r:.60}, which can run code")
            _walk(item, inner)
    elif isinstance(value, list):
        for item in value:
            _walk(item, key)
    elif isinstance(value, str) and not _harmless(value, key):
        raise Unsafe(f"the graph has {value!r:.60} as {key!r}, which can run code")


def _harmless(text: str, key: str) -> bool:
    if key == "target":
        return _OPERATORS.fullmatch(text) is not None or _is_tensor_operator(text)
    if key == "expr_str":
        return _is_size(text)
    if key in _SPECS:
        return bool(text == "" or json.loads(text) == _SPECS[key])
    return _TEXTS.get(key, _NAME).fullmatch(text) is not None


def _is_tensor_operator(target: str) -> bool:
    place, _, rest = target.partition("torch.ops.aten.")
    packet, _, overload = rest.partition(".")
    if place or packet in _FILES or not (_NAME.fullmatch(packet) and _NAME.fullmatch(overload)):
        return False
    return isinstance(getattr(getattr(torch.ops.aten, packet, None), overload, None), torch._ops.OpOverload)


def _is_size(formula: str) -> bool:
    """Whether a symbolic size, as ``Mul(Integer(2), Symbol('s0', integer=True))``, only calls known functions."""
    try:
        tree = ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return "\n" not in formula and _is_size_node(tree)


def _is_size_node(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        symbol = isinstance(node.value, str) and re.fullmatch(r"[a-z]+\d+", node.value, re.ASCII)
        return bool(symbol) or isinstance(node.value, int)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_size_node(node.operand)
    if isinstance(node, ast.Call):
        parts = [*node.args, *(word.value for word in node.keywords)]
        known = isinstance(node.func, ast.Name) and _SIZES.fullmatch(node.func.id)
        return bool(known) and all(map(_is_size_node, parts))
    return False
