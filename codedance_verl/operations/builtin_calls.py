"""Calls of Python's own functions: output, collections, and the ways to call or name something indirectly."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from codedance_verl.operations import arrays, containers, pixels
from codedance_verl.operations.attributes import attribute
from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.graph import Weak
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import (
    Value,
    all_refs,
    constant,
    derived,
    element,
    from_image,
    joined,
    listed,
)


def handle(state: State, done: Invocation) -> Value | None:
    """Value of a call; None for one without a rule here."""
    rule = _RULES.get(done.path)
    if rule is not None:
        return rule(state, done)
    if done.path.startswith("builtins.str."):
        return _text_method(state, done)
    return containers.handle(state, done)


def _print(state: State, done: Invocation) -> Value:
    state.show(*done.args)
    return Value(const=None)


def _display(state: State, done: Invocation) -> Value:
    refs = state.operation(done.node, Category.DISPLAY, "display", *done.operands)
    state.graph.show(refs)
    return Value(const=None)


def _len(state: State, done: Invocation) -> Value:
    value = done.subject
    if value.objects or value.kind is Kind.SHAPES:
        refs = state.operation(done.node, Category.COUNT, "len of objects", value)
    elif value.kind in (Kind.COORDINATES, Kind.PROFILE) and value.image:
        refs = state.operation(done.node, Category.STATISTICS, "len of pixels", value)
    else:
        refs = all_refs(value)
    return derived(Kind.NUMBER, value, refs=refs)


def _aggregate(state: State, done: Invocation) -> Value:
    """`sum`, `max`, `min`, `sorted`, `any`, `all`."""
    key = done.named.get("key")
    if len(done.args) > 1 and done.name in ("max", "min"):
        return _clamped(state, done)
    value = done.subject
    if key is not None:
        # for the operations in it alone: the order that it gives is not followed
        state.call(state, done.node, key, [element(value)], {})
    if done.name == "sum" and value.objects and value.items and all(item.is_const for item in value.items):
        refs = state.operation(done.node, Category.COUNT, "sum over objects", value)
        return derived(Kind.NUMBER, value, refs=refs)
    if value.kind is Kind.STRING or not containers.orders_numbers(value):
        found = derived(Kind.UNKNOWN, value) if value.kind is Kind.STRING else element(value)
        return _sorted(value, found) if done.name == "sorted" else found
    if done.name in ("any", "all") and not value.pixels:
        return derived(Kind.NUMBER, value)
    plain = Invocation(done.node, done.path, None, [value], {})
    found = arrays.aggregate(state, plain, value)
    if done.name == "sorted":
        return _sorted(value, element(value).under(found.refs))
    if done.name in ("max", "min") and found.kind is Kind.NUMBER and value.kind in (Kind.LIST, Kind.DICT):
        member = element(value)
        return derived(member.kind, value, refs=found.refs.union(member.refs), items=member.items, exact=member.exact)
    return found


def _sorted(value: Value, member: Value) -> Value:
    found = derived(Kind.LIST, value, refs=all_refs(value).union(member.refs))
    found.items, found.objects, found.series = [member], value.objects or value.kind is Kind.SHAPES, value.series
    return found


def _clamped(state: State, done: Invocation) -> Value:
    """The larger or smaller one of several numbers."""
    if any(value.kind in (Kind.STRING, Kind.LIST) for value in done.args):
        return joined(done.args)
    refs = state.operation(done.node, Category.ARITHMETIC, done.path, *done.args, weak=Weak.COMPARISON)
    return derived(Kind.NUMBER, *done.args, refs=refs)


def _enumerate(state: State, done: Invocation) -> Value:
    """`enumerate`, `zip`, `reversed`, `list`, `tuple`, `set`, `iter`: containers of the same elements."""
    values = done.args
    if not values:
        return listed([])
    first = values[0]
    exact = all(value.exact and value.kind is Kind.LIST for value in values)
    if done.name == "enumerate":
        if exact:
            found = listed(listed([constant(place), item]) for place, item in enumerate(first.items))
        else:
            found = listed([listed([Value(Kind.NUMBER), element(first)])], exact=False)
    elif done.name == "zip":
        rows = zip(*(value.items for value in values), strict=False) if exact else [[element(v) for v in values]]
        found = listed((listed(row) for row in rows), exact=exact)
    elif first.kind is Kind.LIST:
        items = first.items[::-1] if done.name == "reversed" else list(first.items)
        found = listed(items, exact=first.exact and done.name not in ("set", "frozenset"))
    elif first.kind is Kind.DICT:
        found = listed([constant(key) for key in first.fields], exact=first.exact)
    else:
        return derived(first.kind, *values, objects=first.objects, series=first.series, part=first.part)
    for value in values:
        found.refs = found.refs.union(value.refs)
        found.objects = found.objects or value.objects or value.kind is Kind.SHAPES
        found.series = found.series or value.series
        found.image = found.image or value.image
    return found


def _dict(state: State, done: Invocation) -> Value:
    found = Value(Kind.DICT, exact=not done.args, fields=dict(done.named))
    for value in done.args:
        found.refs = found.refs.union(value.refs)
        found.fields.update(value.fields)
        for pair in value.items:
            if pair.exact and len(pair.items) == 2:
                containers.store(state, found, pair.items[0], pair.items[1])
            else:
                containers.add(found, element(pair))
    return found


def _range(state: State, done: Invocation) -> Value:
    # bounds decide how many numbers there are; they do not flow into them
    found = Value(Kind.LIST, all_refs(*done.args).as_test(False), series=True)
    found.items = [Value(Kind.NUMBER)]
    known = [value.const for value in done.args if value.is_const and isinstance(value.const, int)]
    if len(known) == len(done.args) == 1 and 0 <= known[0] <= 1:
        found.items, found.exact = [constant(number) for number in range(known[0])], True
    return found


def _number(state: State, done: Invocation) -> Value:
    """Conversions to a number, and roundings."""
    value = done.subject
    if value.kind in (Kind.PIXEL, Kind.SHAPE):
        return derived(value.kind, *done.operands)
    if value.pixels:
        return arrays.handle(state, Invocation(done.node, f"numpy.{done.name}", None, done.args, done.named)) or value
    return derived(Kind.NUMBER, *done.operands, series=value.series)


def _map(state: State, done: Invocation) -> Value:
    if not done.args:
        return Value()
    function, values = done.args[0], done.args[1:]
    exact = all(value.exact and len(value.items) <= 16 for value in values)
    rows: Sequence[Sequence[Value]]
    rows = list(zip(*(value.items for value in values), strict=False)) if exact else [[element(v) for v in values]]
    made = [state.call(state, done.node, function, list(row), {}) for row in rows]
    found = listed(made, exact=exact)
    for value in values:
        found.refs = found.refs.union(value.refs)
        found.objects = found.objects or value.objects or value.kind is Kind.SHAPES
    return found


def _filter(state: State, done: Invocation) -> Value:
    if len(done.args) < 2:
        return Value()
    function, value = done.args[:2]
    test = state.call(state, done.node, function, [element(value)], {})
    found = listed([element(value)], exact=False)
    found.refs = value.refs.union(all_refs(test).as_test(not from_image(test)))
    found.objects = value.objects or value.kind is Kind.SHAPES
    return found


def _reduce(state: State, done: Invocation) -> Value:
    function, value = done.args[0], done.args[1]
    start = done.args[2] if len(done.args) > 2 else element(value)
    found = start
    # twice, so that the function also meets a result of its own
    for item in value.items if value.exact else [element(value)] * 2:
        found = state.call(state, done.node, function, [found, item], {})
    return found


def _next(state: State, done: Invocation) -> Value:
    return element(done.subject)


def _getattr(state: State, done: Invocation) -> Value:
    name = done.args[1].text() if len(done.args) > 1 else None
    if name is None:
        return derived(Kind.UNKNOWN, *done.args)
    return attribute(done.args[0], name)


def _setattr(state: State, done: Invocation) -> Value:
    name = done.args[1].text() if len(done.args) > 2 else None
    if name is not None:
        done.args[0].fields[name] = done.args[2]
    return Value(const=None)


def _names(state: State, done: Invocation) -> Value:
    scope = state.names if done.name == "globals" else state.frame.scopes[-1]
    # the scope itself: `globals()["x"] = 1` binds a name
    return Value(Kind.DICT, fields=scope)


def _module(state: State, done: Invocation) -> Value:
    name = done.subject.text()
    if name is None:
        return Value()
    # `__import__("a.b")` gives `a`, unless names are taken from it.
    whole = done.name == "import_module" or "fromlist" in done.named or len(done.args) > 3
    return Value(path=name if whole else name.partition(".")[0])


def _run(state: State, done: Invocation) -> Value:
    """Code in a constant string runs; any other is not known."""
    text = done.subject.text()
    tree = None if text is None else state.tree_of(text)
    if tree is None:
        return derived(Kind.UNKNOWN, *done.operands)
    with state.deeper():
        if done.name == "eval" and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
            return state.evaluate(state, tree.body[0].value)
        state.run(state, tree.body)
    return Value(const=None)


def _partial(state: State, done: Invocation) -> Value:
    if not done.args:
        return Value()
    function, args, named = done.args[0], list(done.args[1:]), dict(done.named)
    return Value(path="functools.partial()", receiver=function, items=args, fields=named)


def _method_caller(state: State, done: Invocation) -> Value:
    return Value(path="operator.methodcaller()", items=list(done.args), fields=dict(done.named))


def _operator(state: State, done: Invocation) -> Value | None:
    name = done.name.strip("_")
    if name in ("gt", "ge", "lt", "le", "eq", "ne"):
        return pixels.compare(state, done.node, [_COMPARISONS[name]()], done.args)
    if name in _OPERATORS and done.args:
        return pixels.binary(state, done.node, _OPERATORS[name](), done.args[0], done.args[-1])
    return None


def _same(state: State, done: Invocation) -> Value:
    """Decorators, contexts and copies: what they are given."""
    return done.subject


def _counter(state: State, done: Invocation) -> Value:
    value = done.subject
    if value.kind is Kind.PROFILE or value.pixels:
        refs = state.operation(done.node, Category.STATISTICS, done.path, value)
    elif value.objects:
        refs = state.operation(done.node, Category.COUNT, done.path, value)
    elif value.kind is Kind.LIST and done.args:
        refs = state.operation(done.node, Category.TABLES, done.path, value)
    else:
        refs = all_refs(*done.operands)
    return derived(Kind.DICT, *done.operands, refs=refs, items=[Value(Kind.NUMBER, refs)])


def _default_dict(state: State, done: Invocation) -> Value:
    return Value(Kind.DICT)


def _deque(state: State, done: Invocation) -> Value:
    return derived(Kind.OBJECT, *done.operands, path="collections.deque()", items=[*done.args])


def _text_method(state: State, done: Invocation) -> Value:
    text = done.subject.text()
    if done.name == "split" and text is not None and not done.rest:
        return listed([constant(word) for word in text.split()[:64]])
    if done.name in ("split", "splitlines", "rsplit", "partition"):
        return derived(Kind.LIST, *done.operands, items=[derived(Kind.STRING, *done.operands)])
    if text is not None and not done.rest and done.name in ("upper", "lower", "strip", "title"):
        return constant(getattr(text, done.name)())
    numbers = ("count", "find", "index", "isdigit", "startswith", "endswith")
    return derived(Kind.NUMBER if done.name in numbers else Kind.STRING, *done.operands)


def _nothing(state: State, done: Invocation) -> Value:
    return Value(const=None)


_COMPARISONS: Mapping[str, type[ast.cmpop]] = {
    "gt": ast.Gt, "ge": ast.GtE, "lt": ast.Lt, "le": ast.LtE, "eq": ast.Eq, "ne": ast.NotEq
}  # fmt: skip
_OPERATORS: Mapping[str, type[ast.operator]] = {
    "add": ast.Add, "sub": ast.Sub, "mul": ast.Mult, "truediv": ast.Div, "floordiv": ast.FloorDiv, "mod": ast.Mod,
    "pow": ast.Pow, "and": ast.BitAnd, "or": ast.BitOr, "xor": ast.BitXor,
}  # fmt: skip

_Rule = Callable[[State, Invocation], Value | None]

_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("builtins.print", "pprint.pprint", "sys.stdout.write", "rich.print", "logging.info"), _print),
    **dict.fromkeys(("builtins.display", "IPython.display.display"), _display),
    "builtins.len": _len,
    **{f"builtins.{name}": _aggregate for name in ("sum", "max", "min", "sorted", "any", "all")},
    **{
        f"builtins.{name}": _enumerate
        for name in ("enumerate", "zip", "reversed", "list", "tuple", "set", "frozenset", "iter")
    },
    "itertools.chain": _enumerate,
    "builtins.dict": _dict,
    "builtins.range": _range,
    **{f"builtins.{name}": _number for name in ("int", "float", "abs", "round", "bool", "complex")},
    "builtins.map": _map,
    "itertools.starmap": _map,
    "builtins.filter": _filter,
    "functools.reduce": _reduce,
    "builtins.next": _next,
    "builtins.getattr": _getattr,
    "builtins.setattr": _setattr,
    "builtins.globals": _names,
    "builtins.locals": _names,
    "builtins.vars": _names,
    "builtins.__import__": _module,
    "importlib.import_module": _module,
    "builtins.eval": _run,
    "builtins.exec": _run,
    "functools.partial": _partial,
    "operator.methodcaller": _method_caller,
    **{f"operator.{name}": _operator for name in (*_COMPARISONS, *_OPERATORS)},
    **dict.fromkeys(("copy.copy", "copy.deepcopy", "functools.wraps", "contextlib.suppress"), _same),
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "collections.OrderedDict": _dict,
    "collections.deque": _deque,
    "builtins.isinstance": _nothing,
    "builtins.hasattr": _nothing,
    "builtins.type": _nothing,
    "warnings.filterwarnings": _nothing,
}
