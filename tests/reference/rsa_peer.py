"""Writes rsa.json: what rsatoolbox gives for resamples with given indices. Run in its own environment (`make peers`):

.venvs/rsatoolbox/bin/python tests/reference/rsa_peer.py
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import compare_inputs  # noqa: E402

METHODS = ("cosine", "corr", "spearman", "rho-a", "tau-a", "cosine_cov", "corr_cov")
DRAWS = 6


def main() -> None:
    from rsatoolbox.data import Dataset, noise
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling
    from rsatoolbox.model import ModelInterpolate, ModelWeighted
    from rsatoolbox.model.fitter import fit_interpolate, fit_regress_nn
    from rsatoolbox.rdm import RDMs, calc_rdm, compare
    from rsatoolbox.util.inference_util import extract_variances

    warnings.simplefilter("ignore")
    data, models = compare_inputs.rdm_family()
    subjects, patterns = compare_inputs.resamples()
    D, M = RDMs(data), RDMs(models)
    found: dict[str, object] = {"rsatoolbox": version("rsatoolbox")}
    for method in METHODS:
        table = []
        for k in range(DRAWS):
            for a, b in ((subjects[k], patterns[k]), (subjects[k], None), (None, patterns[k])):
                sample, predicted = D, M
                if a is not None:
                    sample = sample.subsample("index", a)
                if b is not None:
                    sample, predicted = sample.subsample_pattern("index", b), M.subsample_pattern("index", b)
                scores = compare(predicted, sample, method=method).mean(1)
                table.append([*scores.tolist(), *boot_noise_ceiling(sample, method, rdm_descriptor="index")])
        found[f"draws/{method}"] = table
    rng = np.random.RandomState(8)
    three = rng.randn(3, 40, 6) * np.array([1.0, 0.7, 0.8])[:, None, None]
    variances = np.stack([np.cov(one.T) for one in three])
    model, difference, ceiling = extract_variances(variances, nc_included=True, n_rdm=8, n_pattern=15)
    found["variances"] = {"model": model.tolist(), "difference": difference.tolist(), "ceiling": ceiling[:, 0].tolist()}
    for method in ("corr", "cosine"):
        # Three components: with all four the peer can loop for ever.
        found[f"weighted/{method}"] = fit_regress_nn(ModelWeighted("w", RDMs(models[:3])), D, method=method).tolist()
        found[f"interpolated/{method}"] = fit_interpolate(ModelInterpolate("i", RDMs(models[:3])), D, method=method).tolist()
    G, _, condition, run, _ = compare_inputs.runs()
    patterns_of_runs = Dataset(G, obs_descriptors={"c": condition, "r": run})
    precision = noise.prec_from_unbalanced(patterns_of_runs, "c")
    found["crossnobis/measurement"] = (
        calc_rdm(patterns_of_runs, method="crossnobis", descriptor="c", noise=precision, cv_descriptor="r").dissimilarities[0].tolist()
    )
    (HERE / "rsa.json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
