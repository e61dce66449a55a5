"""Completions made to hang, crash or cheat a math verifier, with the reference each is tried on. None is right."""

# ruff: noqa: E501

TOWER = "9^{9^{9^9}}"

# what stands in the box, for the reference 5
BOXED = {
    "tower": TOWER, "plain tower": "9^9^9^9", "python tower": "9**9**9**9", "small tower": "9^{-9^{9^9}}",
    "tower below": f"\\frac{{1}}{{{TOWER}}}", "tower modulo": f"{TOWER} \\bmod 7", "named tower": f"x={TOWER}",
    "chain of towers": f"x={TOWER}={TOWER}", "towers": f"\\{{{TOWER},{TOWER}\\}}", "e tower": "e^{e^{e^{e^{10}}}}",
    "tower in a logarithm": f"\\ln({TOWER})", "sine of much": "\\sin(9^{9^{9}})", "sine of more": "\\sin(10^{10^{5}})",
    "ambiguous tower": f"{TOWER}/2x", "power of a sine": f"\\sin(9)^{{{TOWER}}}", "sines": "\\sin(x)^{9}+" * 99 + "1",
    "factorial": "(10^{9})!", "factorials": "((9!)!)!", "many !": "9!!!!!", "large factorial": "99999!",
    "binomial": "\\binom{10^9}{5\\cdot10^8}", "a million digits": "1" * 1_000_000, "too many digits": "1" * 1_999,
    "digits in commas": "1," * 999, "digits in spaces": "1 " * 999, "power of digits": f"({'9' * 290})^{{{'9' * 290}}}",
    "large fraction": f"\\frac{{{'1' * 290}}}{{{'3' * 290}}}", "1E999": "1.0E999", "10^999": "1\\times10^{999}",
    "900 roots": "\\sqrt{" * 900 + "2" + "}" * 900, "45 roots": "\\sqrt{" * 45 + "2" + "}" * 45,
    "roots without braces": "\\sqrt " * 390 + "2", "900 braces": "{" * 900 + "5" + "}" * 900,
    "45 fractions": "\\frac{1}{" * 45 + "2" + "}" * 45, "200 fractions": "\\frac{1}{" * 200 + "2" + "}" * 200,
    "fractions without braces": "\\frac" * 300 + "1" * 301, "long sum": "x+" * 1_000_000,
    "eval": "__import__('os').system('id')", "subclasses": "().__class__.__bases__[0].__subclasses__()",
    "lambda": "(lambda: 5)()", "format string": "{0.__class__}", "zero width": "\u200b5", "right to left": "\u202e5",
    "arabic": "\u0665", "combining": "5\u0301", "mathematical bold": "\U0001d7f3", "circled": "\u2464",
    "keycap": "5\ufe0f\u20e3",
    "byte order mark": "\ufeff5", "determinant": "\\det\\begin{pmatrix}" + "x&y\\\\" * 100 + "\\end{pmatrix}",
    "open matrices": "\\begin{pmatrix}" * 60, "wide matrix": f"\\begin{{pmatrix}}{'1&' * 900}1\\end{{pmatrix}}",
    "high matrix": "\\begin{pmatrix}" + "1\\\\" * 600 + "1\\end{pmatrix}", "integral": "\\int_0^1 x^{x^{x^x}} dx",
    "power of a matrix": "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{999999}", "large polynomial": "(x+1)^{1000000}",
    "root of large index": "\\sqrt[10^9]{x}", "base 1": "\\log_{1}{5}", "base 0": "\\log_{0}{5}",
    "base of almost 1": "\\log_{\\frac{10^{80}+1}{10^{80}}} 5", "and as a decimal": f"\\log_{{1.{'0' * 90}1}}{{5}}",
    "many digits over 0": f"\\frac{{1.{'0' * 25}1}}{{0}}", "pole": "\\tan 90^\\circ",
    "division by zero": "\\frac{5}{1-1}", "no number": "\\infty-\\infty", "apart": "\\sqrt2\\cdot10^{-9999}+10^{9999}\\sqrt3",
    "many sizes": "+".join(f"\\sin 2\\cdot10^{{{n}}}" for n in range(5900, 5990, 2)), "lone backslash": "5\\", "null": "\0" * 900,
}  # fmt: skip

# pieces that are repeated up to the limit, behind "1"
REPEATED = [
    "+1", "-1", "\\cdot2", "/2", "=1", "<1", ",1", ";", "\\pm1", "\\cup[0,1]", "\\text{ or }5", "(x+1)", "x^{9}", "x^{99}", "\\sin ",
    "\\ln ", "!", "'", "|x|", "|", "_1", "^1", "...", ":1", "&", "%", "\\text{a}", " cm", "\\int x ", "\\sum_{k=1}^{9}",
    "\\lfloor x\\rfloor", "(9!)", "--", " ", ",111", " 111", "\\sqrt2+", "+\\sqrt[3]{2}", "\\overline{3}", "\\{1,", "^\\circ", "ab ",
    "\\frac12", "i", "e^x", "x\\ne1,", "\\approx1", "\\bmod 2", "\\le x", "\\setminus\\{1\\}", "\\\\", "{", "}", "(", ")", "\\left(",
    ".", "$", "\\%", "\\,", "\\! ", "0", "{,}111",
]  # fmt: skip

# whole completions, for the references 5 and B
WHOLE = {
    "text": "a" * 2_000_000, "open braces": "{" * 2_000_000, "closed braces": "}" * 2_000_000, "lines": "\n" * 2_000_000,
    "open boxes": "\\boxed{" * 280_000, "boxes without braces": "\\boxed " * 280_000, "backslashes": "\\" * 2_000_000,
    "a box and spaces": "\\boxed" + " " * 2_000_000 + "{5}", "thoughts": "<think>" * 280_000, "zeros": "\0" * 2_000_000,
    "answer is": "answer is " * 200_000, "answer and spaces": "The answer is B" + " " * 2_000_000 + "x",
    "separators": "\\boxed{1}" + " , $" * 20_000 + "\\boxed{2}", "mixed boxes": "\\boxed 6 \\boxed{7}" * 110_000,
}  # fmt: skip


def hostile() -> dict[str, tuple[str, str]]:
    """Name -> (reference, completion)."""
    found = {name: ("5", f"\\boxed{{{answer}}}") for name, answer in BOXED.items()}
    for piece in REPEATED:
        found[f"{piece} x 40"] = ("x+1", f"\\boxed{{1{piece * 40}}}")
        for gold in ("5", "(1,2)"):
            found[f"{piece} on {gold}"] = (gold, f"\\boxed{{1{piece * (1_990 // len(piece))}}}")
    for name, text in WHOLE.items():
        found |= {f"2 MB of {name}": ("5", text), f"2 MB of {name}, choice": ("B", text)}
    found["a reference with an integral"] = ("\\int_0^1 x dx", "\\boxed{\\int_0^1 x^{x^{x^x}} dx}")
    found["a reference with a sum"] = ("\\sum_{k=1}^{n} k", f"\\boxed{{\\sum_{{k=1}}^{{{TOWER}}} k^{{k^k}}}}")
    found["a reference with a function"] = ("f(x)", f"\\boxed{{f({TOWER})}}")
    found["an interval of towers"] = ("(1,2)", f"\\boxed{{({TOWER}, {TOWER})}}")
    found["an inequality of towers"] = ("(1,2)", f"\\boxed{{1<x<{TOWER}}}")
    found["polynomials"] = ("x", "\\boxed{(x+y)^{999}(x-y)^{999}(x+2y)^{999}}")
    found["x tower"] = ("x^2", "\\boxed{x^{x^{x^{x^{x^{x}}}}}}")
    return found
