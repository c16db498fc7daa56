"""The parameters that name a run: what its directory, and the rows of tables of runs, are called by."""

BENCHMARK_KEYS = ("dataset", "benchmark")  # ucla_xview: of runs that can be compared
OWN_KEYS = ("model", "modality", "seed", "tag")  # bpi_joint_seed0_tag: within a benchmark
RUN_KEYS = BENCHMARK_KEYS + OWN_KEYS
GROUP_KEYS = tuple(key for key in RUN_KEYS if key != "seed")  # runs that share these are seeds of one another
