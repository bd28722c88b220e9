"""SQLite under load: an in-memory database whose rows are inserted, changed, read and deleted. Nothing is lost.

usage: rows.py SECONDS
"""
import random
import sqlite3
import sys
import time


def main():
    chance = random.Random(1)
    until = time.monotonic() + float(sys.argv[1])
    db = sqlite3.connect(":memory:")
    db.execute("create table notes (id integer primary key, user integer, text text)")
    db.execute("create index by_user on notes (user)")
    serial = 0
    while time.monotonic() < until:
        for _ in range(100):
            serial += 1
            db.execute("insert into notes values (?, ?, ?)", (serial, serial % 50, "n" * chance.randrange(20, 2000)))
        db.execute("update notes set text = text || '.' where user = ?", (chance.randrange(50),))
        db.execute("delete from notes where id < ?", (serial - 5000,))
        db.execute("select user, count(*), max(length(text)) from notes group by user order by 2").fetchall()
        time.sleep(0.02)


main()
