from modelyard.runtime.worker.process import environment


def test_an_environment_that_a_driver_chose_is_passed_on_without_modelyards_own_variables() -> None:
    outer = {"MODELYARD_WORK": "/w", "MODELYARD_SOCKET": "/s", "API_KEY": "k", "MKL_NUM_THREADS": "7"}
    seen = environment(outer, 2, "/scratch")
    assert seen["MODELYARD_WORK"] == "/w"  # tells whose a stray process is
    assert "MODELYARD_SOCKET" not in seen
    assert (seen["API_KEY"], seen["TMPDIR"]) == ("k", "/scratch")
    assert (seen["MKL_NUM_THREADS"], seen["OMP_NUM_THREADS"], seen["LOKY_MAX_CPU_COUNT"]) == ("7", "2", "2")


def test_of_a_persons_environment_only_the_allowed_part_is_passed_on() -> None:
    seen = environment({"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "k"}, 1, "/scratch")
    assert (seen["PATH"], seen["LC_ALL"]) == ("/bin", "C")
    assert "AWS_SECRET_ACCESS_KEY" not in seen


def test_a_worker_tells_the_makers_of_libraries_nothing_unless_its_owner_says_so() -> None:
    assert environment({"PATH": "/bin"}, 1, "/scratch")["ORT_DISABLE_TELEMETRY"] == "1"
    chosen = {"MODELYARD_WORK": "/w", "ORT_DISABLE_TELEMETRY": "0"}
    assert environment(chosen, 1, "/scratch")["ORT_DISABLE_TELEMETRY"] == "0"
