"""A worker in steady state: objects, dicts and lists come and go, and all that is kept has a limit.

usage: steady_worker.py SECONDS
"""
import collections
import random
import sys
import time

CACHE_LIMIT = 4000
SESSION_SECONDS = 8
RECENT = 2000
JOBS_PER_TICK = 12
TICK_SECONDS = 0.1


class Session:
    def __init__(self, user, until):
        self.user = user
        self.until = until
        self.seen = []


def parse(text):
    """The kind of work that makes many small objects: a query string into a dict of lists."""
    fields = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        fields.setdefault(name, []).append(value)
    return fields


def answer(fields, cache, chance):
    key = fields["q"][0]
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    cache[key] = "%s:%s" % (key, "x" * chance.randrange(100, 3000))
    if len(cache) > CACHE_LIMIT:
        cache.popitem(last=False)
    return cache[key]


def main():
    chance = random.Random(7)
    end = time.monotonic() + float(sys.argv[1])
    cache = collections.OrderedDict()
    sessions = {}
    recent = collections.deque(maxlen=RECENT)
    due = time.monotonic()
    while due < end:
        for _ in range(JOBS_PER_TICK):
            user = chance.randrange(3000)
            fields = parse("q=%d&user=%d&tag=a&tag=b&page=%d" % (chance.randrange(20000), user, chance.randrange(9)))
            session = sessions.get(user)
            if session is None:
                session = sessions[user] = Session(user, due + SESSION_SECONDS)
            session.seen.append(fields)
            recent.append((user, answer(fields, cache, chance)[:50]))
            table = sorted((chance.random(), i) for i in range(50))
            "".join(str(i) for _, i in table)
        for user in [user for user, session in sessions.items() if session.until < due]:
            del sessions[user]
        due += TICK_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


main()
