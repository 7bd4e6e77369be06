"""Pods do what every driver does, but for what is Kubernetes' own affair."""

from collections.abc import AsyncIterator

import pytest

from cluster_driver_testing import driving
from cluster_suite_testing import SuiteRig
from cluster_testing import Namespace
from modelyard.testing.driver_suite import DriverSuite

NAMES = "pods have names of Kubernetes', an address each, and no process id that is ours"
SCHEDULER = "no ledger of one machine: the scheduler finds room (test_driver_troubles.py)"
WORDS = "the kubelet has words of its own for it, and a task waits for it like a unit (test_driver_troubles.py)"
PAUSES = "pauses between starts are the kubelet's and the Job controller's: 10, 20, 40 seconds (test_driver_tasks.py)"
HINTS = "what controllers and the kubelet write about pods are hints as well, so nobody can expect that there is none"
REPLACED = "the loop makes a Job of a gang anew; that is no affair of the driver alone (test_driver_tasks.py)"
EXCEPTED = {
    "test_replicas_are_processes_that_are_named_by_ordinal": NAMES,
    "test_members_are_processes_of_their_own": NAMES,
    "test_a_killed_replica_is_told_and_comes_back_quickly": NAMES,
    "test_a_unit_grows_and_shrinks_from_the_highest_ordinal": "a ReplicaSet chooses who leaves (test_driver_units.py)",
    "test_a_task_grows_and_shrinks_from_the_highest_index": "it is asynchronous here (test_driver_tasks.py)",
    "test_what_came_of_copies_of_requests_is_told_to_the_owner": NAMES,
    "test_a_drain_has_an_end": "it is 10 seconds longer than declared, which the goldens show",
    "test_a_unit_that_is_wanted_again_while_it_stops_stays": "what is being deleted goes; the loop starts it again",
    "test_asking_again_for_what_is_already_so_tells_nobody": HINTS,
    "test_asking_again_for_the_same_members_tells_nobody": HINTS,
    "test_news_of_what_has_begun_is_told_once": HINTS,
    "test_a_replica_that_keeps_ending_is_started_with_growing_pauses": PAUSES,
    "test_a_failure_that_is_reported_while_it_works_ends_it": PAUSES,
    "test_a_member_that_fails_is_counted_told_and_started_with_growing_pauses": PAUSES,
    "test_a_killed_member_comes_back_and_its_trouble_stays": PAUSES,
    "test_the_next_start_may_do_what_the_first_could_not": PAUSES,
    "test_a_reported_failure_is_the_trouble": "it is told before it is counted (test_driver_troubles.py)",
    "test_a_replica_that_does_not_get_ready_is_ended": "probes know whole seconds (test_driver_troubles.py)",
    "test_what_does_not_fit_waits_for_room": SCHEDULER,
    "test_a_task_whose_memory_does_not_fit_fails_for_now": SCHEDULER,
    "test_members_take_no_turns_of_tasks_that_run_once": SCHEDULER,
    "test_a_gang_starts_only_when_there_is_room_for_all": SCHEDULER,
    "test_members_start_where_there_is_room_and_wait_otherwise": SCHEDULER,
    "test_a_service_gets_the_room_of_as_few_members_as_needed": SCHEDULER,
    "test_a_member_that_waits_to_be_started_again_makes_room_too": SCHEDULER,
    "test_a_gang_makes_room_as_a_whole": SCHEDULER,
    "test_a_job_of_a_higher_priority_goes_first": SCHEDULER,
    "test_a_job_never_takes_the_room_of_a_service": SCHEDULER,
    "test_a_missing_secret_is_named_and_waited_for": WORDS,
    "test_missing_credentials_are_named_and_waited_for": WORDS,
    "test_a_runner_whose_credentials_are_missing_waits_for_them": WORDS,
    "test_a_task_whose_credentials_are_missing_fails_for_now": WORDS,
    "test_a_task_with_members_may_have_a_deadline": "what a deadline ends is counted as failed by the Job controller",
    "test_a_task_without_a_report_says_how_it_ended": "how a container ended is a report (test_driver_tasks.py)",
    "test_ending_well_without_saying_that_the_work_is_done_is_a_failure": "exit status 0 makes an index succeed",
    "test_a_process_is_told_what_had_begun_when_it_started": "one that starts anew in its pod has the pod's work",
    "test_a_gang_is_done_when_all_its_members_are": "members that are done are not told apart (test_driver_tasks.py)",
    "test_the_failure_of_one_replaces_all_and_counts_once": REPLACED,
    "test_what_a_done_member_did_counts_for_its_attempt_alone": REPLACED,
}
"""Name of a case -> why it is none of pods, and where they show what they do instead."""


class TestPods(DriverSuite):
    """The other cases."""

    @pytest.fixture
    async def rig(self, stand_in: None, namespace: Namespace) -> AsyncIterator[SuiteRig]:
        async with driving(namespace) as found:
            yield SuiteRig(found)


def test_what_is_excepted_exists() -> None:
    assert [name for name in EXCEPTED if not hasattr(DriverSuite, name)] == []


for _name in EXCEPTED:
    setattr(TestPods, _name, None)
