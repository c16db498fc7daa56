import numpy as np
import pytest
from making import save_result
from scipy import stats

from bpilib.analysis.comparison import choose_results, compare_classes, compare_pairs, compare_seeds, pair_clips
from bpilib.analysis.results import find_results, remove_copies


def results_of(outputs, **rights):
    """One result for each model named, right where its list says so."""
    for model, right in rights.items():
        save_result(outputs, [bool(r) for r in right], model=model)
    return {result.model: result for result in find_results(outputs)[0]}


def test_clips_are_paired_by_name_not_by_place(tmp_path):
    save_result(tmp_path, [True, False, True], names=["a", "b", "c"])
    save_result(tmp_path, [False, True, False], seed=1, names=["c", "a", "b"], labels=[2, 0, 1])
    right_a, right_b, labels = pair_clips(*find_results(tmp_path)[0])
    assert right_a.tolist() == [True, False, True]
    assert right_b.tolist() == [True, False, False]
    assert labels.tolist() == [0, 1, 2]


def test_other_clips_labels_or_classes_are_refused(tmp_path):
    save_result(tmp_path, [True, True])
    save_result(tmp_path, [True, True], seed=1, names=["clip0", "other"])
    save_result(tmp_path, [True, True], seed=2, labels=[1, 1])
    first, *others = find_results(tmp_path)[0]
    for other in others:
        with pytest.raises(ValueError, match="scored on different clips or classes"):
            pair_clips(first, other)
    with pytest.raises(ValueError, match="1 of the same name"):
        pair_clips(first, others[0])


def test_honest_and_test_selected_are_never_compared(tmp_path):
    save_result(tmp_path, [True])
    save_result(tmp_path, [True], seed=1, select="test")
    honest, selected = find_results(tmp_path)[0]
    for pair in ((honest, selected), (selected, honest)):
        with pytest.raises(ValueError, match=r"seed1 was selected on the test clips, .* and \S+seed0 was not"):
            compare_pairs(pair)


def test_pairs_count_what_they_say(tmp_path):
    by = results_of(tmp_path, bpi=[1, 1, 1, 1, 0, 0], ctrgcn=[1, 0, 0, 0, 1, 0], gap=[1, 1, 1, 1, 0, 0])
    table = compare_pairs([by["bpi"], by["ctrgcn"], by["gap"]])
    first = table.iloc[0]
    assert (first.a, first.b) == ("synthetic_xview/bpi_joint_seed0", "synthetic_xview/ctrgcn_joint_seed0")
    assert (first.clips, first.both, first.only_a, first.only_b, first.neither) == (6, 1, 3, 1, 1)
    assert first.difference == pytest.approx(100 * 2 / 6) and first.low < first.difference < first.high
    assert first.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    same = table.iloc[1]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (table.p_holm >= table.p).all() and len(table) == 3
    assert compare_pairs([by["bpi"]]).empty


def test_pairs_are_compared_again_without_copies(tmp_path):
    copies = ["clip0", "clip1", "clip2"]
    save_result(tmp_path, [True] * 6, copies=copies)
    save_result(tmp_path, [False, False, False, True, True, False], model="ctrgcn", copies=copies)
    results, _ = find_results(tmp_path)
    (whole,), (rest,) = (compare_pairs(r).to_dict("records") for r in (results, remove_copies(results)))
    assert (whole["clips"], whole["only_a"], whole["only_b"]) == (6, 4, 0) and whole["p"] == 2 / 2**4
    assert (rest["clips"], rest["both"], rest["only_a"], rest["only_b"]) == (3, 2, 1, 0) and rest["p"] == 1
    assert rest["difference"] == pytest.approx(100 / 3)


def test_settings_are_compared_over_the_seeds_that_both_have(tmp_path):
    rng, right = np.random.default_rng(0), {}
    for model, share, seeds in (("bpi", 0.8, (0, 1, 2, 5)), ("ctrgcn", 0.5, (0, 1, 2)), ("gap", 0.5, (2,))):
        for seed in seeds:
            right[model, seed] = rng.random(200) < share
            save_result(tmp_path, right[model, seed].tolist(), model=model, seed=seed)
    results, _ = find_results(tmp_path)
    table = compare_seeds(results, choose_results(results))
    (row,) = table.to_dict("records")  # gap has no second seed
    gain = np.mean([right["bpi", seed].astype(float) - right["ctrgcn", seed] for seed in (0, 1, 2)], 0)
    by_seed = [100 * (right["bpi", seed].mean() - right["ctrgcn", seed].mean()) for seed in (0, 1, 2)]
    assert (row["seeds"], row["clips"]) == ("0, 1, 2", 200)
    assert row["difference"] == pytest.approx(100 * gain.mean()) == pytest.approx(row["mean_a"] - row["mean_b"])
    assert row["by_seed"] == ", ".join(f"{points:+.1f}" for points in by_seed)
    expected = stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx(tuple(expected))
    normal = 196 * gain.std(ddof=1) / np.sqrt(200)
    assert (row["low"], row["high"]) == pytest.approx((100 * gain.mean() - normal, 100 * gain.mean() + normal), abs=1)
    assert row["p"] < 0.001 and row["p_holm"] == row["p"]


def test_one_seed_each_is_no_comparison_over_seeds_and_the_same_networks_do_not_differ(tmp_path):
    for seed in (0, 1):
        for model in ("bpi", "ctrgcn"):
            save_result(tmp_path, [True, False, True], model=model, seed=seed)
    results, _ = find_results(tmp_path)
    assert compare_seeds([r for r in results if r.seed == 0], results[:1]).empty
    (row,) = compare_seeds(results, choose_results(results)).to_dict("records")
    assert (row["difference"], row["p"], row["by_seed"]) == (0, 1, "+0.0, +0.0") and np.isnan(row["seeds_low"])


def test_classes_are_sorted_and_their_intervals_stay_honest_with_few_clips(tmp_path):
    a, b = [1, 1, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]
    by = results_of(tmp_path, bpi=a, ctrgcn=b)
    table = compare_classes(by["bpi"], by["ctrgcn"])
    assert table["clips"].tolist() == [2, 2, 2]  # clips 0, 3 are of class 0; 1, 4 of class 1; 2, 5 of class 2
    assert table["difference"].tolist() == [50, 50, 50]
    assert (table.low >= -100).all() and (table.high <= 100).all() and (table.low < table.high).all()
    # by hand, Bonett and Price: 1 of 2 only a's, so (1 + 1) / 4 and (0 + 1) / 4
    half = 1.959964 * np.sqrt((0.5 + 0.25 - 0.25**2) / 4)
    assert (table.low[0], table.high[0]) == pytest.approx((100 * (0.25 - half), 100 * min(0.25 + half, 1)))
    turned = compare_classes(by["ctrgcn"], by["bpi"])
    assert turned["difference"].tolist() == [-50, -50, -50]


def test_identical_runs_have_a_wide_interval_in_small_classes(tmp_path):
    by = results_of(tmp_path, bpi=[1] * 6, ctrgcn=[1] * 6)
    table = compare_classes(by["bpi"], by["ctrgcn"])
    assert (table.low < -20).all() and (table.high > 20).all() and (table.p_holm == 1).all()


def test_the_pair_that_differs_in_the_model_leads_and_seeds_come_once(tmp_path):
    save_result(tmp_path, [True], modality="bone")
    for seed in (0, 1):
        save_result(tmp_path, [True], seed=seed)
    save_result(tmp_path, [True], model="ctrgcn")
    save_result(tmp_path, [True], model="gap", select="test")
    chosen = choose_results(find_results(tmp_path)[0])
    assert [result.name.split("/")[1] for result in chosen] == ["bpi_joint_seed0", "ctrgcn_joint_seed0",
                                                                "bpi_bone_seed0"]  # fmt: skip


def test_results_of_other_clips_are_not_chosen_by_themselves(tmp_path):
    save_result(tmp_path, [True], names=["odd"])
    save_result(tmp_path, [True], model="ctrgcn")
    save_result(tmp_path, [True], model="gap")
    assert {result.model for result in choose_results(find_results(tmp_path)[0])} == {"ctrgcn", "gap"}


def test_results_are_chosen_by_name(tmp_path):
    by = results_of(tmp_path, bpi=[1], ctrgcn=[1])
    chosen = choose_results([*by.values()], ["ctrgcn_joint_seed0", "synthetic_xview/bpi_joint_seed0"])
    assert [result.model for result in chosen] == ["ctrgcn", "bpi"]
    with pytest.raises(ValueError, match="no finished run 'bpi_joint_sed0', did you mean 'bpi_joint_seed0'"):
        choose_results([*by.values()], ["bpi_joint_sed0"])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_compare_is_no_error(tmp_path, count):
    results = [*results_of(tmp_path, **{"bpi": [1]} if count else {}).values()]
    assert len(choose_results(results)) == count
