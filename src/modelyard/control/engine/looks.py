"""What planners look at, gathered for one object from everything that keeps itself up to date."""

from collections.abc import Callable

from modelyard.api.access import AccessPolicy
from modelyard.api.job import ModelJob
from modelyard.api.model import Model
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.control.engine.grants import Grants
from modelyard.control.engine.objects import Objects
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.engine.publisher import Publisher
from modelyard.control.ir.observed import Load, Observed
from modelyard.control.ir.values import Key
from modelyard.control.plan.views import AccessPolicyView, GoingStreamView, JobView, ModelView, ServiceView, StreamView


class Looks:
    """Makes views. gateway_url: what statuses tell callers."""

    def __init__(
        self,
        *,
        objects: Objects,
        grants: Grants,
        publisher: Publisher,
        driver: Driver,
        gateway: Gateway,
        gateway_url: Callable[[], str],
    ) -> None:
        self._objects = objects
        self._grants = grants
        self._publisher = publisher
        self._driver = driver
        self._gateway = gateway
        self._gateway_url = gateway_url

    def model(self, key: Key, thing: Model, observed: Observed) -> ModelView:
        """A Model."""
        return ModelView(
            model=thing,
            runtimes=self._objects.runtimes(key.namespace),
            observed=observed,
            capabilities=self._driver.capabilities,
        )

    def service(self, key: Key, thing: ModelService, observed: Observed) -> ServiceView:
        """A service, with what is in force for it and who may call it now."""
        return ServiceView(
            service=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revisions=self._objects.revisions(key),
            observed=observed,
            route=self._gateway.observe(key),
            in_transit=self._publisher.in_transit(key),
            capabilities=self._driver.capabilities,
            gateway_url=self._gateway_url(),
            access=self._grants.access(key),
            load=self._load(observed),
        )

    def _load(self, observed: Observed) -> tuple[Load, ...]:
        loads = self._gateway.load()
        return tuple(loads[each.unit.name] for each in observed.units if each.unit.name in loads)

    def policy(self, thing: AccessPolicy) -> AccessPolicyView:
        """A policy, with the services there are of those that it is about."""
        keys = self._objects.services(thing.metadata.namespace)
        named = thing.spec.services
        return AccessPolicyView(
            policy=thing,
            services={each.name: self._grants.access(each) for each in keys if named is None or each.name in named},
            standing=self._grants.standing,
        )

    def job(self, key: Key, thing: ModelJob, observed: Observed) -> JobView:
        """A job."""
        return JobView(
            job=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revision=self._objects.job_revision(key),
            observed=observed,
            capabilities=self._driver.capabilities,
        )

    def stream(self, key: Key, thing: ModelStream, observed: Observed) -> StreamView:
        """A stream."""
        return StreamView(
            stream=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revisions=self._objects.revisions(key),
            observed=observed,
            capabilities=self._driver.capabilities,
        )

    def going(self, key: Key, observed: Observed) -> GoingStreamView:
        """A stream that is being deleted, whether it can be read or not."""
        thing = self._objects.declared.get(key)
        return GoingStreamView(
            key=key,
            stored=self._objects.raw[key],
            stream=thing if isinstance(thing, ModelStream) else None,
            revisions=self._objects.revisions(key),
            observed=observed,
        )
