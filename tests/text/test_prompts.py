"""Class texts: the shipped ones keep the rules, and files that break one are refused by name."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
import yaml

from bpilib.text.prompts import PARTS, Prompts, load_prompts

FOLDER = Path(__file__).parents[2] / "params" / "prompts"
CLASSES = {
    "ucla": (
        "pick up with one hand", "pick up with two hands", "drop trash", "walk around", "sit down",
        "stand up", "donning", "doffing", "throw", "carry",
    ),
    "synthetic": (
        "wave", "clap", "drink", "put on a hat", "kick", "touch knee", "squat", "bow", "jumping jack", "march in place",
    ),
}  # fmt: skip


def entry(name, *synonyms):
    return {"name": name, "synonyms": list(synonyms), **{part: f"{part} of {name}" for part in PARTS}}


GOOD = {"dataset": "toy", "classes": ["run", "hop"], "prompts": [entry("run", "sprint", "dash"), entry("hop", "jump")]}


def load(tmp_path, content, **options):
    path = tmp_path / "toy.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_prompts(path, **options)


@pytest.mark.parametrize("name", CLASSES)
def test_shipped_prompts_keep_the_rules(name):
    path = FOLDER / f"{name}.yaml"
    prompts = load_prompts(path, CLASSES[name])
    assert prompts == load_prompts(path)
    assert prompts.classes == CLASSES[name]
    assert prompts.source == path
    assert path.read_text().startswith("#")
    synonyms = [text.casefold() for group in prompts.synonyms for text in group]
    assert all(len(group) >= 8 for group in prompts.synonyms)
    assert len(set(synonyms)) == len(synonyms)
    assert not set(synonyms) & set(CLASSES[name])
    descriptions = [d[part] for d in prompts.descriptions for part in PARTS]
    assert len(set(descriptions)) == len(descriptions)
    for d in prompts.descriptions:
        assert tuple(d) == PARTS
        for part in PARTS:
            assert d[part].split()[0] in (part, part + "s", {"foot": "feet"}.get(part))
    assert all(";" not in text and text == text.strip() for text in prompts.texts())


def test_part_prompts_in_the_published_order(tmp_path):
    prompts = load(tmp_path, GOOD)
    bpi, gap = prompts.part_prompts("bpi"), prompts.part_prompts("gap")
    assert list(bpi) == ["torso", "arm", "leg"]
    assert list(gap) == ["head", "hand", "hip", "foot"]
    assert bpi["torso"] == ("run, head of run, hip of run", "hop, head of hop, hip of hop")
    assert bpi["arm"][0] == gap["hand"][0] == "run, hand of run, arm of run"
    assert bpi["leg"][1] == gap["foot"][1] == "hop, leg of hop, foot of hop"
    assert gap["head"][0] == "run, head of run"
    assert gap["hip"][1] == "hop, hip of hop"
    with pytest.raises(ValueError, match=r"ctrgcn.*bpi, gap"):
        prompts.part_prompts("ctrgcn")


def test_texts_and_digest(tmp_path):
    prompts = load(tmp_path, GOOD)
    assert prompts.synonyms_of(0) == ("run", "sprint", "dash")
    texts = prompts.texts()
    assert len(texts) == len(set(texts)) == 3 + 2 + 2 * 5  # of bpi's and gap's 7 part prompts two are the same
    assert texts[:4] == ("run", "sprint", "dash", "run, head of run, hip of run")
    assert prompts.digest() == hashlib.sha256(json.dumps(list(texts), separators=(",", ":")).encode()).hexdigest()
    other = copy.deepcopy(GOOD)
    other["prompts"][1]["foot"] += "!"
    assert load(tmp_path, other).digest() != prompts.digest()


def test_select_reorders_and_names_what_is_missing(tmp_path):
    prompts = load(tmp_path, GOOD, classes=["hop"])
    assert prompts.classes == ("hop",)
    assert prompts.synonyms == (("jump",),)
    prompts = load(tmp_path, GOOD)
    assert prompts.select(["hop", "run"]).select(["run", "hop"]) == prompts
    with pytest.raises(
        ValueError, match=r"no prompts for 2 of 3 classes: 'runn' \(nearest: 'run'\), 'fly' \(nearest: none"
    ):
        load(tmp_path, GOOD, classes=["hop", "runn", "fly"])


def test_an_accent_in_two_characters_is_the_one_in_one(tmp_path):
    other = copy.deepcopy(GOOD)
    other["classes"] = [*other["classes"][:-1], "gru\u0308ßen"]  # as a Mac writes it
    other["prompts"][-1]["name"] = "gru\u0308ßen"
    assert load(tmp_path, other, classes=["grüßen"]).classes == ("grüßen",)


def broken(edit):
    content = copy.deepcopy(GOOD)
    edit(content)
    return content


def entry_with(i, **values):
    return broken(lambda content: content["prompts"][i].update(values))


BROKEN = {
    "no mapping": ("- a", "expected the keys dataset, classes, prompts, got list"),
    "no YAML": ("a: [", "expected YAML"),
    "key missing": (broken(lambda c: c.pop("dataset")), "missing dataset"),
    "unknown key": (broken(lambda c: c.update(clases=[])), "unknown key clases"),
    "classes no list": (broken(lambda c: c.update(classes="run")), "`classes` to be a list"),
    "prompts no list": (broken(lambda c: c.update(prompts={})), "`prompts` to be a list"),
    "part missing": (broken(lambda c: c["prompts"][1].pop("arm")), "class 'hop': missing arm"),
    "part empty": (entry_with(1, arm=" "), "class 'hop': expected `arm` to be a text"),
    "part no text": (entry_with(0, leg=True), "class 'run': expected `leg`.*True"),
    "name missing": (broken(lambda c: c["prompts"][1].pop("name")), "entry 2 of `prompts`: missing name"),
    "unknown part": (entry_with(0, knee="x"), "class 'run': unknown key knee"),
    "no synonym": (entry_with(1, synonyms=[]), "class 'hop': .*at least 1"),
    "synonym twice": (entry_with(0, synonyms=["dash", "Dash"]), "'dash' 2 times in class 'run'"),
    "own name": (entry_with(0, synonyms=["RUN"]), "'run' 2 times in class 'run'"),
    "shared": (entry_with(1, synonyms=["Sprint"]), "'sprint' shared by classes 'run', 'hop'"),
    "other's name": (entry_with(1, synonyms=["run"]), "'run' shared by classes 'run', 'hop'"),
    "class without entry": (broken(lambda c: c["classes"].append("fly")), "'fly' is only in `classes`"),
    "entry without class": (broken(lambda c: c["classes"].pop()), "'hop' is only in `prompts`"),
    "class twice": (broken(lambda c: c["classes"].append("run")), "each class once in `classes`, got 'run'"),
    "entry twice": (broken(lambda c: c["prompts"].append(c["prompts"][0])), "once in `prompts`, got 'run'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(tmp_path, case):
    content, message = BROKEN[case]
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, content)
    assert "toy.yaml" in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: expected a text file of prompts"):
        load_prompts(tmp_path / "none.yaml")


def published(tmp_path, parts, synonyms, **options):
    (tmp_path / "p.txt").write_text(parts)
    (tmp_path / "p.synonyms.txt").write_text(synonyms)
    return load_prompts(tmp_path / "p.txt", **options)


LINE = "{0}; head of {0}; hand of {0};arm of {0}; hip of {0}; leg of {0}; foot of {0};\n"


def test_published_files(tmp_path, recwarn):
    prompts = published(tmp_path, LINE.format("run") + "\n" + LINE.format("hop"), "run, sprint,dash,\nhop, jump\n")
    assert not recwarn
    content = load(tmp_path, GOOD)
    assert prompts == content
    assert prompts.source == tmp_path / "p.txt"
    assert prompts.digest() == content.digest()
    assert published(tmp_path, LINE.format("run"), "Run, dash", classes=["run"]) == Prompts(
        ("run",), (("dash",),), content.descriptions[:1]
    )


def test_published_parts_without_synonyms(tmp_path):
    (tmp_path / "p.txt").write_text(LINE.format("run"))
    with pytest.raises(ValueError, match=r"p\.synonyms\.txt: expected a text file of prompts"):
        load_prompts(tmp_path / "p.txt")


def test_published_faults_are_kept_and_listed(tmp_path):
    with pytest.warns(UserWarning, match="kept as published") as warned:
        prompts = published(tmp_path, LINE.format("run") + LINE.format("hop"), "run, dash, dash\nskip, dash, jump\n")
    assert prompts.synonyms == (("dash", "dash"), ("dash", "jump"))
    text = str(warned[0].message)
    for fault in ("'dash' 2 times in class 'run'", "'dash' shared by classes 'run', 'hop'", "'hop' is called 'skip'"):
        assert fault in text


@pytest.mark.parametrize(
    ("parts", "synonyms", "message"),
    [
        (LINE.format("run"), "run, dash\nhop, jump", "one line per class in both files, got 1 .*, 2 in"),
        ("", "", "one line per class"),
        ("run; head; hand arm; hip; leg; foot", "run, dash", r"class 1 \('run'\): expected 7 texts .*got 6"),
        ("run; head; ; arm; hip; leg; foot", "run, dash", r"class 1 \('run'\): expected 7 texts .*got 6"),
        (LINE.format("run"), "run,", r"synonyms\.txt: class 1 \('run'\): expected name, synonym"),
    ],
)
def test_broken_published_files_are_refused(tmp_path, parts, synonyms, message):
    with pytest.raises(ValueError, match=message):
        published(tmp_path, parts, synonyms)
