"""The command: its files, its refusals, and how it ends."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

import jaxsched
from jaxsched import Recipe, Trace, cli, recipes
from jaxsched._extras import missing
from jaxsched._figure import figure_of, warmup_end
from jaxsched.cli import _parser
from jaxsched.examples import train_nnx
from jaxsched.plot import plot

PARITY = [
    "parity: 30 iterations × 3 groups × learning rate, momentum, weight decay: 0 ULP",
    "not compared, only on one side: dampening, maximize, clip_norm, clip_value, ema, accumulation",
]
ARGUMENTS = {"epochs": 3, "steps_per_epoch": 5, "warmup_iterations": 4, "lr0": 0.02}
OPTIONS = ["--epochs", "3", "--steps-per-epoch", "5", "--warmup-iterations", "4", "--lr0", "0.02"]


def refusal(capsys, *words):
    """Return the one sentence that refuses a command."""
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err.strip()


def columns_of(trace):
    return {
        f"{label}/{name}": values.tolist()
        for label, group in trace.groups.items()
        for name, values in group.items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run: its folder and its output."""
    folder = tmp_path_factory.mktemp("train") / "new" / "run"
    command = [sys.executable, "-m", "jaxsched", "train", "--epochs", "1", "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.long
def test_train_ends_with_parity(run):
    lines = run[1].splitlines()
    accuracy, *parity = lines[-3:]
    assert parity == PARITY
    assert accuracy.startswith("test accuracy: ")
    assert accuracy.endswith("% of 1197 images")


@pytest.mark.long
def test_train_writes_the_trace_of_its_run(run):
    trace = Trace.load(run[0] / "trace.npz")
    assert columns_of(trace) == columns_of(recipes.yolov5_resnet18().trace(30))
    assert columns_of(Recipe.from_trace(trace).trace(30)) == columns_of(trace)


@pytest.mark.long
def test_train_draws_the_run(run):
    assert (run[0] / "lr.png").read_bytes().startswith(b"\x89PNG")


def rows(n, wrong_at=None):
    """Yield the rows of a training of n iterations, without training."""
    trace = recipes.yolov5_resnet18().trace(n)
    for k in range(n):
        values = {
            label: {name: column[k] for name, column in group.items()}
            for label, group in trace.groups.items()
        }
        if k == wrong_at:
            values["bias"]["learning_rate"] = np.float32(0.5)
        yield train_nnx.Iteration(1.0, 0.5, values)


@pytest.fixture
def replace_training(monkeypatch):
    monkeypatch.setattr(train_nnx, "create", lambda *_, **__: (None, None))
    monkeypatch.setattr(train_nnx, "accuracy", lambda *_: 0.5)

    def set_iterations(iterations):
        monkeypatch.setattr(train_nnx, "train", lambda *_: iterations)

    return set_iterations


def test_train_prints_where_parity_breaks(replace_training, tmp_path, capsys):
    replace_training(rows(30, wrong_at=7))
    assert cli.main(["train", "--epochs", "1", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "bias/learning_rate: 29 of 30 equal" in out
    assert "first at iteration 7: 0.5 for " in out


def test_80_columns_show_how_far_the_run_is_and_its_numbers(
    replace_training, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    replace_training(rows(30))
    assert cli.main(["train", "--epochs", "1", "--out", str(tmp_path)]) == 0
    bar, numbers = capsys.readouterr().out.strip().splitlines()[:2]
    assert re.fullmatch(r"30/30 ━+ 0:00:00", bar.strip())
    expected = "loss 1.0000  accuracy 50%  rates: weight 0.00029  bias 0.09739  norm 0.00029"
    assert numbers.strip() == expected


def test_train_keeps_what_was_recorded_when_interrupted(replace_training, tmp_path, capsys):
    def interrupt():
        yield from rows(12)
        raise KeyboardInterrupt

    replace_training(interrupt())
    assert cli.main(["train", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped after 12 iterations\n"
    assert len(Trace.load(tmp_path / "trace.npz")) == 12


def test_train_interrupted_before_the_first_iteration_writes_nothing(replace_training, tmp_path):
    def interrupt():
        raise KeyboardInterrupt
        yield

    replace_training(interrupt())
    assert cli.main(["train", "--out", str(tmp_path)]) == 130
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("epochs", ["0", "101", "-3"])
def test_train_refuses_epochs(epochs, capsys):
    sentence = f"jaxsched train: --epochs must be from 1 to 100, got {epochs}"
    assert refusal(capsys, "train", "--epochs", epochs) == sentence


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_train_refuses_seeds(seed, capsys, tmp_path):
    sentence = f"jaxsched train: --seed must be from 0 to 2**63 - 1, got {seed}"
    assert refusal(capsys, "train", "--seed", seed, "--out", str(tmp_path)) == sentence


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--out", "{file}/run"],
        ["plot", "yolov5_resnet18", "--out", "{file}/lr.png"],
        ["export", "yolov5_resnet18", "--out", "{file}/curves.csv"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_cannot_be_written_is_refused(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_nnx, "create", None)  # before training
    file = tmp_path / "file"
    file.touch()
    sentence = refusal(capsys, *(word.format(file=file) for word in words))
    assert "out must be in a folder that can be written, got " + str(file) in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "(Permission denied)" in refusal(capsys, "train", "--out", str(tmp_path))


@pytest.mark.parametrize(("n", "given"), [(15, []), (4, ["--iterations", "4"])])
def test_export_csv(n, given, tmp_path, capsys):
    out = tmp_path / "new" / "curves.csv"
    words = ["export", "yolov5-resnet18", *OPTIONS, *given, "--out", str(out)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    header, *lines = csv.reader(out.open())
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    assert list(map(int, columns.pop("iteration"))) == list(range(n))
    exact = {name: list(map(float, values)) for name, values in columns.items()}
    assert exact == columns_of(recipes.yolov5_resnet18(**ARGUMENTS).trace(n))


def test_export_json(tmp_path):
    out = tmp_path / "curves.json"
    words = ["export", "yolov5_resnet18", *OPTIONS, "--start-epoch", "1", "--out", str(out)]
    assert cli.main(words) == 0
    content = json.loads(out.read_text())
    trace = recipes.yolov5_resnet18(**ARGUMENTS, start_epoch=1).trace(10)
    assert content["start"] == 5
    assert columns_of(
        Trace({g: {k: np.array(v) for k, v in c.items()} for g, c in content["groups"].items()})
    ) == columns_of(trace)


def test_export_npz(tmp_path):
    out = tmp_path / "curves.npz"
    assert cli.main(["export", "yolov5_resnet18", *OPTIONS, "--resumed", "--out", str(out)]) == 0
    assert columns_of(Trace.load(out)) == columns_of(recipes.yolov5_resnet18(**ARGUMENTS).trace(15))


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_recipes_file_is_exported_and_drawn(suffix, tmp_path):
    file, drawn = str(tmp_path / f"run{suffix}"), [tmp_path / "file.svg", tmp_path / "named.svg"]
    recipe = recipes.yolov5_resnet18(**ARGUMENTS)
    recipe.save(file)
    assert cli.main(["export", file, "--out", str(tmp_path / "curves.npz")]) == 0
    assert Trace.load(tmp_path / "curves.npz") == recipe.trace(15)
    assert cli.main(["export", file, "--iterations", "4", "--out", str(tmp_path / "4.npz")]) == 0
    assert columns_of(Trace.load(tmp_path / "4.npz")) == columns_of(recipe.trace(4))
    for words, out in zip([[file], ["yolov5_resnet18", *OPTIONS]], drawn, strict=True):
        assert cli.main(["plot", *words, "--out", str(out)]) == 0
    # The curves are equal; Matplotlib adds ids and a date.
    mine, named = (re.findall(r' d="([^"]*)"', path.read_text()) for path in drawn)
    assert mine == named


BY_HAND = """format: jaxsched.Recipe 1
groups:
  all: {learning_rate: {linear: {epochs: 4, lrf: 1e-8}}, momentum: 0.9}
"""


def test_a_file_written_by_hand_is_exported(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(BY_HAND)
    words = ["export", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "x.npz")]
    assert refusal(capsys, *words) == (
        "jaxsched export: --iterations must be given for a recipe without a length, got None. "
        "Pass a number."
    )
    assert cli.main([*words, "--iterations", "5"]) == 0
    rates = Trace.load(tmp_path / "x.npz").groups["all"]["learning_rate"].tolist()
    assert rates[::2] == [1.0, np.float32(0.5 + 0.5e-8), np.float32(1e-8)]


def test_plot_png_and_svg(tmp_path):
    for name, begins in [("lr.png", b"\x89PNG"), ("lr.svg", b"<?xml")]:
        assert cli.main(["plot", "yolov5_resnet18", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
    svg = (tmp_path / "lr.svg").read_text()
    for text in ("weight", "bias", "norm", "iteration", "Learning rate", "Momentum"):
        assert f"<!-- {text} -->" in svg
    assert "<!-- warm-up ends at iteration 1000 -->" in svg


@pytest.mark.parametrize("warmup", [0, 1, 10, 40, 60, 100])
def test_warmup_end_is_read_off_the_curves(warmup):
    recipe = recipes.yolov5_resnet18(epochs=2, warmup_iterations=warmup)
    assert warmup_end(recipe.trace(60)) == (warmup if 0 < warmup < 60 else None)


def test_eight_groups_have_a_picture():
    recipe = recipes.ultralytics(epochs=10, steps_per_epoch=20, optimizer="MuSGD")
    assert warmup_end(recipe.trace(200)) == 60
    assert warmup_end(recipe.trace(60)) is None
    figure = figure_of(recipe.trace(200))
    lines = figure.axes[0].get_lines()[:8]
    assert len({line.get_color() for line in lines}) == 8
    assert len({line.get_linewidth() for line in lines}) == 8
    figure.draw_without_rendering()
    box, (legend,) = figure.bbox, figure.legends
    assert len(legend.get_texts()) == 8
    frame = legend.get_window_extent()
    assert box.x0 <= frame.x0
    assert frame.x1 <= box.x1


def test_rates_that_end_apart_are_no_warmup():
    rates = {"a": [0.0, 0.5, 1.0, 1.0], "b": [0.0, 1.5, 2.0, 3.0]}
    assert warmup_end(Trace({k: {"learning_rate": rate} for k, rate in rates.items()})) is None


def test_a_momentum_that_cycles_is_no_warmup(tmp_path):
    momentum = np.array([0.95, 0.9, 0.85, 0.9, 0.95, 0.95])
    assert warmup_end(Trace({"all": {"momentum": momentum}})) is None
    assert warmup_end(Trace({"all": {"momentum": np.sort(momentum)}})) == 3
    plot(Trace({"all": {"learning_rate": momentum}}), tmp_path / "no-momentum.png")


def test_a_recipe_of_training_arguments(tmp_path, capsys):
    """It is plotted, exported and verified, with the path of the arguments as an option."""
    arguments = {"lr_scheduler_type": "cosine", "warmup_steps": 3, "gradient_accumulation_steps": 2}
    file, counts = tmp_path / "arguments.json", {"num_training_steps": 12, "steps_per_epoch": 5}
    file.write_text(json.dumps(arguments))
    words = ["transformers", "--arguments", str(file), "--num-training-steps", "12"]
    drawn, out = tmp_path / "lr.svg", tmp_path / "curves.npz"
    assert cli.main(["plot", *words, "--steps-per-epoch", "5", "--out", str(drawn)]) == 0
    assert "<!-- no_decay -->" in drawn.read_text()
    assert cli.main(["export", *words, "--steps-per-epoch=5", "--out", str(out)]) == 0
    recipe = recipes.transformers(arguments, **counts)
    assert Trace.load(out) == recipe.trace(20)
    recipe.save(tmp_path / "recipe.yaml")
    against = ["--against", str(out), "--out", str(tmp_path / "parity.png")]
    assert cli.main(["verify", str(tmp_path / "recipe.yaml"), *against]) == 0
    recipes.transformers({**arguments, "warmup_steps": 4}, **counts).save(tmp_path / "port.json")
    assert cli.main(["verify", str(tmp_path / "port.json"), *against]) == 1
    capsys.readouterr()
    assert refusal(capsys, "export", *words, "--out", str(out)).startswith(
        "jaxsched export transformers: --steps-per-epoch must be given with"
    )


def test_plot_needs_to_know_how_many_iterations(tmp_path):
    recipe = Recipe({"all": {"learning_rate": 0.1}})
    with pytest.raises(
        ValueError, match=r"^iterations must be given for a recipe without a length"
    ):
        plot(recipe, tmp_path / "lr.png")
    plot(recipe, tmp_path / "lr.png", iterations=3)


PLOT = "jaxsched plot yolov5_resnet18"
REFUSED = [
    ("", "jaxsched: command must be one of train, plot, export, record, verify, got none. See jaxsched --help."),
    ("trian", 'jaxsched: Unknown command "trian". Did you mean "train"? Available commands: train, plot, export, record, verify.'),
    ("--hlp", 'jaxsched: Unknown command "--hlp". Available commands: train, plot, export, record, verify.'),
    ("plot", "jaxsched plot: recipe must be one of {recipes} or a file, got none. A recipe's file ends in .yaml or .json."),
    ("plot yolov5_resnet", "jaxsched plot: recipe must be one of {recipes} or a file, got yolov5_resnet. Did you mean yolov5_resnet18?"),
    ("plot yolov5_resnet18 --out lr.gif", f"{PLOT}: the file must end in .png or .svg, got lr.gif"),
    ("export yolov5_resnet18 --out curves", "jaxsched export yolov5_resnet18: the file must end in .csv or .json or .npz, got curves"),
    ("plot yolov5_resnet18 --epochs 0", f"{PLOT}: --epochs must be an integer of at least 1, got 0"),
    ("plot yolov5_resnet18 --lr0 -1", f"{PLOT}: --lr0 must be a finite number of at least 0, got -1.0"),
    ("plot yolov5_resnet18 --start-epoch 100", f"{PLOT}: --start-epoch must be below epochs, 100, got 100"),
    ("plot yolov5_resnet18 --iterations 0", f"{PLOT}: --iterations must be an integer of at least 1, got 0"),
    ("record python train.py", "jaxsched record: the script must follow --, got none: record -o run.npz -- python train.py"),
    ("record python train.py --lr 3", "jaxsched record: the script must follow --, got none: record -o run.npz -- python train.py"),
    ("train --epcohs 3", "jaxsched train: Unknown option: --epcohs. Did you mean --epochs?"),
    ("train extra", "jaxsched train: Unused Tokens: ['extra']."),
    ("train --recipe yolo", 'jaxsched train: Invalid value "yolo" for --recipe. Choose from: "yolov5_resnet18", "yolov5". Did you mean "yolov5"?'),
    ("train --seed 1 --seed 2", "jaxsched train: Parameter --seed specified multiple times."),
    ("export yolov5 --steps-per-epoch 3", "jaxsched export yolov5: Parameter --epochs requires an argument."),
    ("plot yolov5_resnet18 --epoch 3", f"{PLOT}: Unknown option: --epoch. Did you mean --epochs?"),
    ("plot yolov5_resnet18 --epochs x", f'{PLOT}: Invalid value for --epochs: unable to convert "x" into int.'),
    ("plot yolov5_resnet18 --epochs 1.5", f'{PLOT}: Invalid value for --epochs: unable to convert "1.5" into int.'),
    ("plot yolov5_resnet18 --epochs", f"{PLOT}: Parameter --epochs requires an argument."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_invalid_words_are_refused_in_a_sentence(words, sentence, capsys):
    sentence = sentence.format(recipes=", ".join(_parser.factories()))
    assert refusal(capsys, *words.split()) == sentence


BAD_FILES = {
    "words.yaml": ("just words", "a recipe must be a mapping, got str."),
    "empty.yaml": ("", "a recipe must be a mapping, got NoneType."),
    "version.yaml": (
        "format: jaxsched.Recipe 9",
        "format must be jaxsched.Recipe 1, got jaxsched.Recipe 9. "
        "Save the recipe again with this version of jaxsched.",
    ),
    "cut.json": ('{"format": ', "Expecting value: line 1 column 12 (char 11)"),
    "text.yaml": (
        BY_HAND.replace("0.9", "fast"),
        "momentum of group all must be a number or a schedule, got 'fast'",
    ),
    "below.yaml": (
        BY_HAND.replace("0.9", "-1"),
        "momentum must be a finite number of at least 0, got -1",
    ),
    "rule.json": (
        '{"format": "jaxsched.Recipe 1", "update_rule": "os.system"}',
        "update_rule must be one of adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, "
        "muon, musgd, nadam, radam, rmsprop, rprop, sgd, got 'os.system'.",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("command", ["plot", "export"])
def test_a_bad_recipes_file_is_refused_in_a_sentence(command, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, reason = BAD_FILES[name]
    (tmp_path / name).write_text(text)
    sentence = f"jaxsched {command}: {name} must be the file of a recipe: {reason}"
    assert refusal(capsys, command, name) == sentence
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("command", ["plot", "export"])
def test_a_recipes_file_that_is_not_there_is_refused(command, capsys):
    sentence = f"jaxsched {command}: no.yaml must be a recipe's file, got no such file."
    assert refusal(capsys, command, "no.yaml") == sentence


@pytest.mark.parametrize(
    "name",
    [
        *("cyclopts", "matplotlib"),
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("rich", "flax", "orbax", "sklearn")
        ),
    ],
)
def test_a_missing_package_is_named(name, tmp_path):
    # In a process of its own, because a half-imported module would stay in ``sys.modules``.
    code = (
        f"import sys; sys.modules[{name!r}] = None; from jaxsched import cli; sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", code, "train", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    command = "jaxsched" if name in ("cyclopts", "rich") else "jaxsched train"
    assert done.stderr == f"{missing(command, name)}\n"


def help_text(capsys, *words):
    assert cli.main([*words, "--help"]) == 0
    return capsys.readouterr().out


def test_help_lists_the_commands_and_recipes(capsys):
    text = help_text(capsys)
    assert all(f" {command.__name__} " in text for command in _parser.COMMANDS)
    assert "yolov5_resnet18" in help_text(capsys, "plot")
    assert "100 epochs" in " ".join(help_text(capsys, "train").split())


@pytest.mark.parametrize(
    "words", [["train"], ["plot", "yolov5"], ["export", "yolov5_resnet18"], ["record"], ["verify"]]
)
def test_help_has_an_example_that_is_taken(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    example = re.search(rf"For instance: jaxsched ({words[0]} .*)", help_text(capsys, *words), re.M)
    assert _parser.parse(_parser.application(), shlex.split(example[1]))


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxsched {jaxsched.__version__}\n"


def test_python_m_jaxsched_is_the_command():
    command = [sys.executable, "-m", "jaxsched", "trian"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('jaxsched: Unknown command "trian". Did you mean "train"?')


COMPLETED = {
    "tr": {"train"},
    "plot yol": {"yolov5", "yolov5_resnet18"},
    "export yolov5 --ep": {"--epochs"},
    "train --recipe y": {"yolov5", "yolov5_resnet18"},
    "verify --ag": {"--against"},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
def test_a_shell_completes_commands_recipes_and_options(tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(_parser.application().generate_completion(shell="bash"))
    lines = [f"source {script}"]
    for words in COMPLETED:
        count = len(words.split())
        lines += [f"COMP_WORDS=(jaxsched {words}); COMP_CWORD={count}; COMPREPLY=()"]
        lines += ["_jaxsched", 'echo "${COMPREPLY[@]}"']
    command = ["bash", "--norc", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    offered = [{*line.split()} for line in done.stdout.splitlines()]
    assert dict(zip(COMPLETED, offered, strict=True)) == COMPLETED


def test_completion_is_installed_in_the_file_that_output_names(tmp_path):
    file = tmp_path / "jaxsched.bash"
    words = ["--install-completion", "--shell", "bash", "--output", str(file)]
    app = _parser.application()
    call = _parser.parse(app, words)
    assert call.keywords == {"shell": "bash", "output": file}


def test_names_may_have_underscores_or_hyphens():
    for name in ("yolov5_resnet18", "yolov5-resnet18"):
        words = ["export", name, "--warmup_iterations", "3", "--no-resumed"]
        call = _parser.parse(_parser.application(), words)
        assert call.keywords == {"warmup_iterations": 3, "resumed": False}


def test_help_names_the_argument_of_verify(capsys):
    assert " MINE " in help_text(capsys, "verify")


def test_a_recipes_arguments_are_options_with_its_own_words(capsys):
    text = help_text(capsys, "plot", "yolov5_resnet18")
    for parameter in recipes.yolov5_resnet18.__kwdefaults__:
        assert f"--{parameter.replace('_', '-')}" in text
    assert "--lr0 FLOAT" in text
    assert "--warmup-iterations INT" in text
    assert "length of the warm-up, in iterations; 0 for none." in text


def test_timms_file_is_exported_drawn_and_verified(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = tmp_path / "args.yaml"
    args.write_text(
        "lr: 0.1\nopt: adamw\nepochs: 4\nwarmup_epochs: 1\nmodel: resnet50\nmixup: 0.8\n"
    )
    words = ["timm", "--args", "args.yaml", "--steps-per-epoch", "5"]
    assert cli.main(["export", *words, "--out", "run.npz"]) == 0
    recipe = recipes.timm(args, steps_per_epoch=5)
    assert columns_of(Trace.load("run.npz")) == columns_of(recipe.trace(20))
    assert cli.main(["plot", *words, "--out", "lr.svg"]) == 0
    recipe.save("recipe.yaml")
    assert cli.main(["verify", "recipe.yaml", "--against", "run.npz"]) == 0
    other = {"lr": 0.1, "opt": "adam", "epochs": 4, "warmup_epochs": 1}
    recipes.timm(other, steps_per_epoch=5).save("other.yaml")
    assert cli.main(["verify", "other.yaml", "--against", "run.npz"]) == 1
    args.write_text("opt: adamw\nlr: null\n")
    capsys.readouterr()
    assert "args['lr'] must be a number above 0" in refusal(capsys, "plot", *words)


def later(
    *, epochs: int, hyp: dict[str, float] | str | None = None, cos_lr: bool = False
) -> Recipe:
    """A recipe that is added later.

    Args:
      epochs: their number.
      hyp: a mapping, or a file.
      cos_lr: true for a cosine.
    """
    assert (hyp, cos_lr) == ("hyp.yaml", True)
    return Recipe({"all": {"learning_rate": 0.5}}, length=2 * epochs)


def test_a_new_factory_needs_no_line_here(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recipes, "later", later, raising=False)
    monkeypatch.setattr(recipes, "__all__", [*recipes.__all__, "later"])
    out = str(tmp_path / "x.csv")
    words = ["export", "later", "--epochs", "2", "--hyp", "hyp.yaml", "--cos-lr", "--out", out]
    assert cli.main(words) == 0
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 1 + 4
    capsys.readouterr()
    assert "--epochs" in refusal(capsys, "export", "later", "--hyp", "hyp.yaml", "--out", out)


def of_args(
    args: Mapping[str, object] | str, /, *, blocks: Sequence[str] = (), f: Callable | None = None
) -> Recipe:
    """A recipe with a file, several words, and an argument that no command line can hold."""
    assert (args, blocks, f) == ("args.yaml", ["a", "b"], None)
    return Recipe({"all": {"learning_rate": 0.5}}, length=2)


def test_a_factory_may_take_a_file_and_several_words(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recipes, "of_args", of_args, raising=False)
    monkeypatch.setattr(recipes, "__all__", ["of_args"])
    words = ["export", "of_args", "args.yaml", "--blocks", "a", "--blocks", "b"]
    assert cli.main([*words, "-o", str(tmp_path / "x.csv")]) == 0
    assert "--f" not in help_text(capsys, "export", "of-args")
