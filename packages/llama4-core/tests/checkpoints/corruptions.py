"""Ways to damage a checkpoint folder, drawn from a seeded generator.

Run as a script it damages many and prints the count:

    python corruptions.py [--count 1000] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from llama4_core.checkpoints.convert import convert, opened
from llama4_core.checkpoints.joined import gathered
from llama4_core.checkpoints.torch_file import read_records
from llama4_core.errors import Llama4Error

MARK = "executed"
WRONG = (None, True, -1, 3.5, "x", [], {}, [1], 10**30, {"a": 1}, "../x", "", [[]], [-4, 4])


class Code:
    """Pickles to a call that would make a folder in the working directory."""

    def __reduce__(self):
        return (os.mkdir, (MARK,))


def edit(path, change):
    found = json.loads(path.read_text())
    path.write_text(json.dumps(change(found) or found))


def some(folder, draw, pattern):
    return draw.choice(sorted(folder.glob(pattern)))


def flip(path, draw, begin, end):
    data = bytearray(path.read_bytes())
    data[draw.randrange(begin, min(end, len(data)))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def weights(folder, draw):
    return some(folder, draw, "*.safetensors" if list(folder.glob("*.safetensors")) else "*.pth")


# --- any format -------------------------------------------------------------------------------


def truncated(folder, draw):
    path = weights(folder, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def lengthened(folder, draw):
    path = weights(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 5000)))


def emptied(folder, draw):
    weights(folder, draw).write_bytes(b"")


def missing(folder, draw):
    weights(folder, draw).unlink()


def replaced_by_folder(folder, draw):
    path = weights(folder, draw)
    path.unlink()
    path.mkdir()


def noise(folder, draw):
    path = weights(folder, draw)
    path.write_bytes(draw.randbytes(path.stat().st_size))


def description_torn(folder, draw):
    path = description(folder)
    text = path.read_text()
    # From the second half of a TOML file whole layers can vanish; what is left still has to fit.
    path.write_text(text[: draw.randrange(len(text) - 2)])


def description_unknown_key(folder, draw):
    path = description(folder)
    if path.suffix == ".toml":
        path.write_text(f"surplus_{draw.randrange(99)} = 1\n" + path.read_text())
    else:
        edit(path, lambda c: c.update({f"surplus_{draw.randrange(99)}": 1}))


def description_other_numbers(folder, draw):
    path = description(folder)
    names = {"spec.toml": ("vocabulary", "width"), "config.json": ("vocab_size", "hidden_size"),
             "params.json": ("vocab_size", "dim", "n_layers")}[path.name]  # fmt: skip
    name = draw.choice(names)
    if path.suffix == ".toml":
        text = path.read_text()
        old = next(line for line in text.splitlines() if line.startswith(f"{name} ="))
        wrong = draw.choice(["-1", "7", '"x"', "true", "[]", "3.5", "1" + "0" * 18])
        path.write_text(text.replace(old, f"{name} = {wrong}", 1))
    else:
        edit(path, lambda c: c.update({name: draw.choice((*WRONG, 7, 10**18))}))


def description_not_an_object(folder, draw):
    description(folder).write_text(draw.choice(["", "[]", "null", "7", "\x00", "{", '"x"', "[["]))


def description(folder):
    names = ("spec.toml", "config.json", "params.json")
    return next(folder / name for name in names if (folder / name).is_file())


# --- safetensors ------------------------------------------------------------------------------


def header_bit(folder, draw):
    path = weights(folder, draw)
    flip(path, draw, 0, 8 + int.from_bytes(path.read_bytes()[:8], "little"))


def header_length(folder, draw):
    path = weights(folder, draw)
    data = path.read_bytes()
    length = draw.choice([0, 1, len(data), 2**63, 2**64 - 1, draw.randrange(2**64),
                          draw.randrange(len(data))])  # fmt: skip
    path.write_bytes(length.to_bytes(8, "little") + data[8:])


def rewrite_header(path, change):
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    text = change(header)
    text = json.dumps(header).encode() if text is None else text
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def header_entry(folder, draw):
    def change(header):
        entry = header[draw.choice([name for name in header if name != "__metadata__"])]
        field = draw.choice(["dtype", "shape", "data_offsets"])
        if draw.random() < 0.2:
            del entry[field]
        elif draw.random() < 0.5 and field != "dtype":
            place = draw.randrange(len(entry[field]))
            entry[field][place] += draw.choice([-1, 1, 64, -4096, 2**40, 2**63])
        else:
            entry[field] = draw.choice((*WRONG, "F8_E4M3", "F32", "I16", "BF17"))

    rewrite_header(weights(folder, draw), change)


def header_keys(folder, draw):
    def change(header):
        names = [name for name in header if name != "__metadata__"]
        one, other = draw.choice(names), draw.choice(names)
        kind = draw.randrange(4)
        if kind == 0:
            del header[one]
        elif kind == 1:
            header["surplus"] = header[one]
        elif kind == 2:
            header[one + "x"] = header.pop(one)
        else:
            text = json.dumps(header)
            return (text[:-1] + f", {json.dumps(other)}: {json.dumps(header[one])}}}").encode()
        return None

    rewrite_header(weights(folder, draw), change)


def index_edit(folder, draw):
    def change(index):
        places = index["weight_map"]
        key = draw.choice(sorted(places))
        kind = draw.randrange(5)
        if kind == 0:
            del places[key]
        elif kind == 1:
            places[key] = draw.choice([*WRONG, "model-00009-of-00009.safetensors", "/etc/passwd"])
        elif kind == 2:
            places["surplus"] = places[key]
        elif kind == 3:
            index["weight_map"] = draw.choice(WRONG)
        else:
            return draw.choice([["x"], 7, {"metadata": {}}])
        return None

    edit(folder / "model.safetensors.index.json", change)


def index_torn(folder, draw):
    path = folder / "model.safetensors.index.json"
    text = path.read_text().rstrip()
    path.write_text(text[: draw.randrange(len(text))])


def shards_exchanged(folder, draw):
    one, other = draw.sample(sorted(folder.glob("*.safetensors")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


# --- Meta -------------------------------------------------------------------------------------


def structure_bit(folder, draw):
    """A bit of anything in the zip but the weights themselves."""
    path = weights(folder, draw)
    held = [r for r in read_records(path).values() if r.name.startswith("data/")]
    size = path.stat().st_size
    spans, reached = [], 0
    for record in sorted(held, key=lambda record: record.start):
        spans.append((reached, record.start))
        reached = record.start + record.size
    spans.append((reached, size))
    flip(path, draw, *draw.choice(spans))


def pickle_bit(folder, draw):
    path = weights(folder, draw)
    record = read_records(path)["data.pkl"]
    flip(path, draw, record.start, record.start + record.size)


def pickle_bit_with_its_checksum(folder, draw):
    """The list of tensors is damaged, and the checksum was computed after that."""
    path = weights(folder, draw)
    members = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    name = next(name for name in members if name.endswith("data.pkl"))
    data = bytearray(members[name])
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    members[name] = bytes(data)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def other_content(folder, draw):
    path = weights(folder, draw)
    kind = draw.randrange(6)
    if kind == 0:
        torch.save(draw.choice([[1], "x", 7, None, {}, {1: torch.zeros(2)}, {"a": 3}]), path)
    elif kind == 1:
        torch.save({"tok_embeddings.weight": Code()}, path)
    elif kind == 2:
        path.write_bytes(pickle.dumps(Code()))
    elif kind == 3:
        torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    elif kind == 4:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", pickle.dumps(Code()))
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)


def other_tensors(folder, draw):
    path = weights(folder, draw)
    tensors = {k: v.clone() for k, v in torch.load(path, weights_only=True).items()}
    key = draw.choice(sorted(tensors))
    kind = draw.randrange(5)
    if kind == 0:
        del tensors[key]
    elif kind == 1:
        tensors["layers.0.surplus"] = torch.zeros(1)
    elif kind == 2:
        tensors[key] = tensors[key][..., :-1]
    elif kind == 3:
        tensors[key] = draw.choice([3, "x", [1], None])
    else:
        tensors[key] = tensors[key].to(torch.int64)
    torch.save(tensors, path)


def shards_misnumbered(folder, draw):
    number = draw.choice([3, 7, 12])
    source = some(folder, draw, "*.pth")
    shutil.copyfile(source, folder / f"consolidated.{number:02d}.pth")


GENERAL = (
    truncated,
    lengthened,
    emptied,
    missing,
    replaced_by_folder,
    noise,
    description_torn,
    description_unknown_key,
    description_other_numbers,
    description_not_an_object,
)
SAFETENSORS = (
    header_bit,
    header_length,
    header_entry,
    header_keys,
    index_edit,
    index_torn,
    shards_exchanged,
)
META = (
    structure_bit,
    pickle_bit,
    pickle_bit_with_its_checksum,
    other_content,
    other_tensors,
    shards_misnumbered,
)


def run(sound, workplace, count, seed):
    """Damages ``count`` copies of the folders in ``sound`` (name of the format -> folder).

    A bit that carries nothing (padding, a date) leaves a sound checkpoint: then the weights have to
    be the same, and another damage is drawn. Returns how often each kind was refused, and the
    number of harmless ones.
    """
    draw = random.Random(seed)
    original = {
        form: {name: gathered(w).clone() for name, w in opened(folder, form)[2].items()}
        for form, folder in sound.items()
    }
    refused, harmless = collections.Counter(), 0
    while refused.total() < count:
        form = draw.choice(sorted(sound))
        damage = draw.choice(GENERAL + (META if form == "meta" else SAFETENSORS))
        folder = Path(shutil.copytree(sound[form], workplace / "damaged"))
        damage(folder, draw)
        what = f"seed {seed}, number {refused.total()}: {damage.__name__} of {form}"
        try:
            convert(folder, workplace / "out", source_format=form)
        except Llama4Error as error:
            if "\n" in str(error) or len(str(error)) > 5000:
                raise AssertionError(f"{what}: not one clear line: {error}") from error
            refused[damage.__name__] += 1
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        else:
            found = opened(folder, form)[2]
            same = found.keys() == original[form].keys() and all(
                torch.equal(gathered(found[name]), w) for name, w in original[form].items()
            )
            if not same:
                raise AssertionError(f"{what}: read without an error, with other weights")
            harmless += 1
            shutil.rmtree(workplace / "out")
        left = sorted(path.name for path in workplace.iterdir() if path.name != "damaged")
        if left or Path(MARK).exists():
            raise AssertionError(f"{what}: left {left}, executed: {Path(MARK).exists()}")
        shutil.rmtree(folder)
    return refused, harmless


def main() -> None:
    """Damages checkpoints of all three formats and prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from folders import make_all

    root = Path(tempfile.mkdtemp(prefix="llama4-corruptions-"))
    try:
        sound = make_all(root / "sound")
        (root / "work").mkdir()
        refused, harmless = run(sound, root / "work", arguments.count, arguments.seed)
    finally:
        shutil.rmtree(root)
    for name, number in sorted(refused.items()):
        print(f"{name:32} {number}")
    print(
        f"{refused.total()} corrupted checkpoints: {refused.total()} clear errors, 0 crashes, "
        f"nothing executed, nothing left; {harmless} harmless flips read the same weights"
    )


if __name__ == "__main__":
    main()
