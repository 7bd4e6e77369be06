"""What an AccessPolicy says about itself."""

from modelyard.api.access import AccessPolicy, AccessPolicySpec, RateLimit
from modelyard.api.fields import Metadata
from modelyard.control.ir.access import Access
from modelyard.control.plan import access_policy, tightening
from modelyard.control.plan.callers import Callers
from modelyard.control.plan.platform import Ground, stand
from modelyard.control.plan.tightening import Tightening
from modelyard.control.plan.views import AccessPolicyView


def test_a_policy_whose_limits_do_not_all_count_says_so_and_for_which_services() -> None:
    limits = tuple(RateLimit(requests=each, per="1s", by="service") for each in (1, 2))
    policy = AccessPolicy(metadata=Metadata(name="late"), spec=AccessPolicySpec(rate_limits=limits))
    standing, _ = stand(Ground())
    counted = tightening.counted([Tightening.of(policy)], Callers(standing.platform.issuers, {}))
    services = {"iris": Access(limits=counted), "digits": Access(limits=counted[:1])}
    outcome = access_policy.desire(AccessPolicyView(policy=policy, services=services, standing=standing), 0.0)
    assert outcome.status is not None
    (ready,) = outcome.status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "TooManyLimits")
    assert "for digits not all of them count: a service has 64 at most" in ready["message"]
