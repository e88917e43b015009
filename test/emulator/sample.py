"""The demo deployment: a small chat application with a billing component.

It has every type of value, optional and null fields, unions, an empty table, and a nested component.
"""

import math

_NAMES = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Katherine Johnson", "Edsger Dijkstra", "Barbara Liskov",
          "Donald Knuth", "Margaret Hamilton", "Ken Thompson", "Radia Perlman", "Tony Hoare", "Frances Allen")
_CHANNELS = (("general", "Everything"), ("random", None), ("engineering", "Bugs & features"),
             ("日本語", "挨拶"))
_LINES = ("Good morning!", "Has anyone seen the build?", "Shipping today.", "Tests are green ✅",
          "Why is \"null\" not undefined?", "See you at 10:30", "Line one\nline two", "Done.")
_SCORES = (12.5, 0.1, -3.0, 1e21, -0.0, math.inf, -math.inf, math.nan, 1e-7, 100.0, 7.25, 5e-324)
_AGES = (36, 85, 41, 101, 72, 2**53 + 1, -(2**63), 2**63 - 1, 0, -1, 89, 63)


def load(store):
    """Three transactions and one later change, so that there is a change log to read."""
    with store.lock:
        tx = store.transaction()
        users = _users(store, tx)
        channels = _channels(tx, users)
        tx.table("", "drafts", create=True)    # stays empty
        tx.commit()
        tx = store.transaction()
        first = _messages(tx, users, channels)
        tx.commit()
        tx = store.transaction()
        _billing(tx)
        tx.commit()
        tx = store.transaction()
        messages = tx.table("", "messages")
        before = tx.get(messages, first)
        tx.replace(messages, first, before, {**before, "edited": True})
        tx.commit()


def _users(store, tx):
    tablet = tx.table("", "users", create=True)
    ids = []
    for i, name in enumerate(_NAMES):
        first, last = name.lower().split()
        fields = {
            "name": name, "email": f"{first}.{last}@example.com", "age": _AGES[i], "score": _SCORES[i],
            "active": i % 3 != 1, "avatar": bytes(range(i * 3)),
            "tags": [f"team-{i % 4}", "founder"][:i % 3],
            "address": {"city": ("London", "New York", "Paris")[i % 3], "lines": [f"{i + 1} Main Street"],
                        "geo": {"lat": 51.5 + i, "lng": -0.125 * i}},
            "settings": {"theme": "dark", "Font Size": 12.0} if i % 2 else None,
        }
        if i % 4 == 0:
            fields["nickname"] = name.split()[0]
        if ids:
            fields["manager"] = tablet.id_text(ids[0])
        ids.append(tx.insert(tablet, fields))
    return [tablet.id_text(internal) for internal in ids]


def _channels(tx, users):
    tablet = tx.table("", "channels", create=True)
    ids = []
    for i, (name, topic) in enumerate(_CHANNELS):
        ids.append(tx.insert(tablet, {"name": name, "topic": topic, "owner": users[i],
                                      "members": users[i:i + 4], "capacity": 10 ** (i + 1)}))
    return [tablet.id_text(internal) for internal in ids]


def _messages(tx, users, channels):
    tablet = tx.table("", "messages", create=True)
    first = None
    for i in range(240):
        fields = {"author": users[i % len(users)], "channel": channels[i % len(channels)],
                  "body": _LINES[i % len(_LINES)], "sequence": i, "sent": 1750000000000.0 + i * 1250.5,
                  "payload": _payload(i)}
        if i % 5 == 0:
            fields["reactions"] = {"count": float(i % 7), "by": users[:i % 3]}
        internal = tx.insert(tablet, fields)
        first = first or internal
    return first


def _payload(i):
    """A union of several types."""
    return (None, f"text {i}", i, i / 8, i % 2 == 0, bytes([i % 256]), {"kind": "link", "url": f"/m/{i}"})[i % 7]


def _billing(tx):
    tx.component("billing", create=True)
    tx.component("billing/ledger", create=True)
    invoices = tx.table("billing", "invoices", create=True)
    entries = tx.table("billing/ledger", "entries", create=True)
    for i in range(20):
        lines = [{"item": f"SKU-{j}", "quantity": j + 1, "price": 9.99 * (j + 1)} for j in range(i % 4)]
        fields = {"number": 1000 + i, "customer": _NAMES[i % len(_NAMES)], "lines": lines,
                  "total": math.fsum(line["price"] * line["quantity"] for line in lines),
                  "status": ("open", "paid", "void")[i % 3]}
        if i % 3 == 1:
            fields["paidAt"] = 1750000000000.0 + i
        internal = tx.insert(invoices, fields)
        tx.insert(entries, {"invoice": invoices.id_text(internal), "cents": 999 * i, "debit": i % 2 == 0})
