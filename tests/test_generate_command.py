"""``llama4 generate`` as a person meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llama4_core
from llama4_core.cli.main import main

TINY = str(Path(__file__).parent / "data" / "tiny-hf")


def test_prints_the_text_as_the_model_gives_it(capsys):
    assert main(["generate", TINY, "The sun", "--max-tokens", "6"]) == 0
    printed = capsys.readouterr()
    expected = llama4_core.load(TINY).generate("The sun", max_tokens=6)
    assert printed.out == expected.text + "\n"
    assert "6 tokens" in printed.err
    assert "stopped by length" in printed.err


def test_json_holds_what_the_result_holds(capsys):
    options = ["--temperature", "0.9", "--top-k", "20", "--top-p", "0.9", "--min-p", "0.01"]
    options += ["--seed", "3", "--max-tokens", "5", "--logprobs", "2", "--prefill-chunk", "2"]
    assert main(["generate", TINY, "--tokens", "496,5,6,7", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = llama4_core.load(TINY).generate(
        [496, 5, 6, 7], max_tokens=5, temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=3,
        logprobs=2, prefill_chunk=2,
    )  # fmt: skip
    assert found["tokens"] == list(expected.tokens)
    assert found["text"] == expected.text
    assert found["logprobs"] == list(expected.logprobs)
    assert found["alternatives"] == json.loads(json.dumps(expected.alternatives))
    assert found["stop_reason"] == "length"


def test_stop_string_and_log_probabilities(capsys):
    free = llama4_core.load(TINY).generate("The sun", max_tokens=8).text
    stop = free[3:5]
    words = ["generate", TINY, "The sun", "--max-tokens", "8", "--stop", stop, "--logprobs", "1"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(free[: free.index(stop)] + "\n")
    assert "stopped by stop string" in printed.err
    assert len(printed.out.splitlines()) > 2


def test_another_backend_gives_the_same_text(capsys):
    texts = []
    for name in ("eager", "sdpa"):
        option = f"layers.*.attention.backend={name}"
        words = ["generate", TINY, "The wind", "--set", option, "--dtype", "float32"]
        assert main([*words, "--max-tokens", "12"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_a_shape_with_random_weights_prints_ids(capsys):
    words = ["generate", "nano", "--random", "0", "--tokens", "1,2,3", "--max-tokens", "3"]
    assert main(words) == 0
    assert len([int(word) for word in capsys.readouterr().out.split()]) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([TINY], "no prompt"),
        ([TINY, ""], "the prompt is empty"),
        ([TINY, "a", "--tokens", "1"], "a prompt and --tokens"),
        ([TINY, "--tokens", "1,x"], "'1,x'"),
        ([TINY, "--tokens", "1,99999"], "99999"),
        ([TINY, "a", "--temperature", "nan"], "temperature is nan"),
        ([TINY, "a", "--temperature", "-1"], "temperature is -1.0"),
        ([TINY, "a", "--top-p", "0"], "top_p is 0.0"),
        ([TINY, "a", "--top-k", "0"], "top_k is 0"),
        ([TINY, "a", "--min-p", "2"], "min_p is 2.0"),
        ([TINY, "a", "--max-tokens", "0"], "max_tokens is 0"),
        ([TINY, "a", "--seed", "-1"], "seed is -1"),
        ([TINY, "a", "--stop", ""], "stop contains ''"),
        ([TINY, "a", "--set", "nonsense"], "PATH=NAME"),
        ([TINY, "a " * 5000], "4096"),
        (["nano", "a", "--random", "0"], "no tokenizer"),
        (["scout", "a"], "--random SEED"),
        (["nowhere/at/all", "a"], "nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line(capsys, words, expected):
    assert main(["generate", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in printed.err


def test_help_has_an_example_and_needs_no_torch():
    program = (
        "import sys; from llama4_core.cli.main import main; main(['generate', '--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "examples:" in done.stdout
