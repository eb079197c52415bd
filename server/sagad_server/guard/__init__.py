"""Rate limits: token buckets for clients, definitions and participants, of this node or, by Redis, of all nodes.

`bucket` is the arithmetic, `local` a bucket of a node without Redis. With Redis, `leases` takes tokens ahead from the
buckets that `redis` reaches. `rate_limits` has the limits by name, and `pace` is what a participant's calls wait for.
"""
