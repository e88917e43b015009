"""Components as functions name them: by the id of a row that no export shows.

Convex: npm-packages/system-udfs/convex/_system/frontend/components.ts, crates/model/src/components/mod.rs.
"""

import hashlib

import values

TABLE_NUMBER = 29


def id_of(path):
    return values.encode_id(TABLE_NUMBER, hashlib.blake2b(path.encode(), digest_size=16).digest())


def path_of(store, component_id):
    """The path of a component, or None when the id is of none."""
    return next((path for path in store.components if id_of(path) == component_id), None)


def describe(store, settings):
    """As `components:list` tells them."""
    return [{"args": {}, "httpPrefix": None, "id": id_of(path), "name": path.rpartition("/")[2] or None, "path": path,
             "state": "unmounted" if path in settings.components_unmounted else "active"}
            for path in sorted(store.components)]
