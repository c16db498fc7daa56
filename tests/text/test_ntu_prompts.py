"""NTU's class texts: the official names in order, both files alike, persons told apart, opposites told apart."""

import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import yaml

from bpilib.text.minilm import SUFFIX, MiniLMText, read_embeddings
from bpilib.text.prompts import PART_PROMPTS, PARTS, digest_texts, load_prompts

FOLDER = Path(__file__).parents[2] / "params" / "prompts"
# A001 to A120, ten a line
NAMES = tuple(
    name.strip()
    for name in """
    drink water; eat meal; brush teeth; brush hair; drop; pick up; throw; sit down; stand up; clapping;
    reading; writing; tear up paper; put on jacket; take off jacket; put on a shoe; take off a shoe; put on glasses; take off glasses; put on a hat/cap;
    take off a hat/cap; cheer up; hand waving; kicking something; reach into pocket; hopping; jump up; phone call; play with phone/tablet; type on a keyboard;
    point to something; taking a selfie; check time (from watch); rub two hands; nod head/bow; shake head; wipe face; salute; put palms together; cross hands in front;
    sneeze/cough; staggering; falling down; headache; chest pain; back pain; neck pain; nausea/vomiting; fan self; punch/slap;
    kicking; pushing; pat on back; point finger; hugging; giving object; touch pocket; shaking hands; walking towards; walking apart;
    put on headphone; take off headphone; shoot at basket; bounce ball; tennis bat swing; juggle table tennis ball; hush; flick hair; thumb up; thumb down;
    make OK sign; make victory sign; staple book; counting money; cutting nails; cutting paper; snap fingers; open bottle; sniff/smell; squat down;
    toss a coin; fold paper; ball up paper; play magic cube; apply cream on face; apply cream on hand; put on bag; take off bag; put object into bag; take object out of bag;
    open a box; move heavy objects; shake fist; throw up cap/hat; capitulate; cross arms; arm circles; arm swings; run on the spot; butt kicks;
    cross toe touch; side kick; yawn; stretch oneself; blow nose; hit with object; wield knife; knock over; grab stuff; shoot with gun;
    step on foot; high-five; cheers and drink; carry object; take a photo; follow; whisper; exchange things; support somebody; rock-paper-scissors
    """.split(";")  # noqa: E501
)
COUNTS = {"ntu120": 120, "ntu60": 60}
MUTUAL = (*range(50, 61), *range(106, 121))  # the official numbers of two-person actions
OPPOSITES = (
    ("put on jacket", "take off jacket"), ("put on a shoe", "take off a shoe"), ("put on glasses", "take off glasses"),
    ("put on a hat/cap", "take off a hat/cap"), ("put on headphone", "take off headphone"),
    ("put on bag", "take off bag"), ("put object into bag", "take object out of bag"), ("thumb up", "thumb down"),
    ("sit down", "stand up"), ("drop", "pick up"), ("walking towards", "walking apart"),
    ("nod head/bow", "shake head"), ("giving object", "grab stuff"),
)  # fmt: skip


@pytest.fixture(scope="module", params=COUNTS)
def prompts(request):
    return load_prompts(FOLDER / f"{request.param}.yaml")


def words(text):
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower())


def overlap(a, b):
    a, b = set(words(a)), set(words(b))
    return len(a & b) / len(a | b)


def test_official_names_in_order():
    assert len(NAMES) == len({name.casefold() for name in NAMES}) == 120
    for dataset, count in COUNTS.items():
        path = FOLDER / f"{dataset}.yaml"
        content = yaml.safe_load(path.read_text())
        assert content["dataset"] == dataset
        assert tuple(content["classes"]) == NAMES[:count]
        assert tuple(entry["name"] for entry in content["prompts"]) == NAMES[:count]  # not only named so: in order
        assert path.read_text().startswith("#")


def test_ntu60_is_the_first_half_of_ntu120():
    assert load_prompts(FOLDER / "ntu60.yaml") == load_prompts(FOLDER / "ntu120.yaml", NAMES[:60])


def test_synonyms_are_many_and_none_is_shared(prompts):
    assert all(len(group) >= 8 for group in prompts.synonyms)
    every = [text.casefold() for group in prompts.synonyms for text in group]
    assert len(set(every)) == len(every)
    assert not set(every) & {name.casefold() for name in NAMES}  # of any of the 120, in ntu60 too


def test_descriptions_start_with_their_part_are_short_and_never_repeat(prompts):
    every = [d[part].casefold() for d in prompts.descriptions for part in PARTS]
    assert len(set(every)) == len(every)
    for name, d in zip(prompts.classes, prompts.descriptions):
        assert tuple(d) == PARTS
        for part in PARTS:
            assert words(d[part])[0] in (part, part + "s", {"foot": "feet"}.get(part)), (name, d[part])
            assert 5 <= len(d[part].split()) <= 18, (name, d[part])
    for model in PART_PROMPTS:  # without the name in front they still tell the classes apart
        for part, texts in prompts.part_prompts(model).items():
            bare = {text.removeprefix(name + ", ") for name, text in zip(prompts.classes, texts)}
            assert len(bare) == len(prompts.classes), part


def test_texts_are_clean(prompts):
    for text in prompts.texts():
        assert text == " ".join(text.split())
        assert text.isascii() and not re.search(r"[;:!?\"]|[,.]\S|[a-z][A-Z]|\.$|^[A-Z]", text), text
        assert max(map(len, words(text))) <= 19, text  # the longest is rock-paper-scissors
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_mutual_actions_speak_of_both_persons(prompts):
    for number, (name, d) in enumerate(zip(prompts.classes, prompts.descriptions), 1):
        both = [
            part
            for part in PARTS
            if re.search(r"\b(one|each|both) persons?\b.*\bthe other\b|\bboth persons\b", d[part])
        ]
        assert len(both) >= 3 and {"hand", "arm"} <= {*both} if number in MUTUAL else not both, (name, both)
        assert number in MUTUAL or not re.search(r"\bpersons?\b", " ".join(d.values())), name


@pytest.mark.parametrize(("a", "b"), OPPOSITES)
def test_opposites_differ_where_the_bodies_do(a, b):
    prompts = load_prompts(FOLDER / "ntu120.yaml", (a, b))
    one, two = prompts.descriptions
    for part in ("hand", "arm"):
        assert overlap(one[part], two[part]) <= 0.5, (one[part], two[part])
    arm = [", ".join((d["hand"], d["arm"])) for d in (one, two)]
    assert overlap(*arm) <= 0.5


def test_every_text_fits_clips_context(prompts):
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    longest = max(prompts.texts(), key=lambda text: len(tokenizer.encode(text)))
    assert len(tokenizer.encode(longest)) + 2 < tokenizer.context_length == 77, longest  # + start and end of text


def test_embeddings_are_current(prompts):
    path = prompts.source.with_suffix(SUFFIX)
    shipped = read_embeddings(path)
    assert tuple(shipped) == prompts.texts()
    assert digest_texts(tuple(shipped)) == prompts.digest()
    for model in PART_PROMPTS:
        assert MiniLMText(model, prompts, path).dim == 384
    other = read_embeddings(FOLDER / f"ntu120{SUFFIX}")
    assert all(np.array_equal(value, other[text]) for text, value in shipped.items())


def test_synonyms_are_nearest_to_their_own_class(prompts):
    """By the shipped embeddings; the stricter share leaves a synonym out of its own class's centre."""
    shipped = read_embeddings(prompts.source.with_suffix(SUFFIX))
    groups = [prompts.synonyms_of(i) for i in range(len(prompts.classes))]
    x = np.stack([shipped[text] for group in groups for text in group]).astype(np.float64)  # (n, D)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.repeat(np.arange(len(groups)), [len(group) for group in groups])  # (n,)
    sums = np.stack([x[y == k].sum(0) for k in range(len(groups))])  # (K, D)
    near = x @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T  # (n, K)
    rest = sums[y] - x
    without = near.copy()
    without[np.arange(len(x)), y] = (x * rest).sum(1) / np.linalg.norm(rest, axis=1)
    synonym = np.array([i > 0 for group in groups for i in range(len(group))])
    assert (near.argmax(1) == y)[synonym].mean() >= 0.97
    assert (without.argmax(1) == y)[synonym].mean() >= 0.87
