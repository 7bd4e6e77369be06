"""What must exist, in nobody's dialect: the values that planners, drivers and gateways share."""
