require("spec.support")
local waits = require("lupe.waits")

describe("a wait", function()
  it("is for I/O, a lock or for work, by its system call", function()
    for syscall, class in pairs({
      [0] = "io", [1] = "io", [45] = "io", [74] = "io", [257] = "io", [73] = "lock", [11] = "lock", [7] = "idle",
      [232] = "idle", [35] = "idle", [288] = "idle", [61] = "idle", [waits.NO_SYSCALL] = "io", [9999] = "io",
    }) do
      assert.equal(class, waits.class(syscall), waits.name(syscall))
    end
  end)

  it("has a name that one can look up", function()
    assert.equal("pread64", waits.name(17))
    assert.equal("page fault", waits.name(waits.NO_SYSCALL))
    assert.equal("syscall 9999", waits.name(9999))
  end)

  it("is taken apart into system call and futex command", function()
    assert.same({ 202, 128 }, { waits.parts(3 + 128 * 256 + 202 * 65536) })
    assert.same({ waits.NO_SYSCALL, 0 }, { waits.parts(3 + waits.NO_SYSCALL * 65536) })
  end)

  it("in a futex is judged by its command where no function says better", function()
    local wait, wait_private, bitset, lock_pi, bitset_private_realtime = 0, 128, 9, 6, bit.band(128 + 256 + 9, 0xff)
    assert.equal("lock", waits.class(waits.FUTEX, wait))
    assert.equal("lock", waits.class(waits.FUTEX, wait_private))
    assert.equal("lock", waits.class(waits.FUTEX, lock_pi))
    assert.equal("idle", waits.class(waits.FUTEX, bitset))
    assert.equal("idle", waits.class(waits.FUTEX, bitset_private_realtime))
  end)

  it("in a futex is for a lock in mutexes and for work in conditions, whatever their names look like", function()
    for _, name in ipairs({
      "pthread_mutex_lock", "___pthread_mutex_lock", "pthread_rwlock_wrlock", "__pthread_mutex_lock@GLIBC_2.2.5",
      "__lll_lock_wait", "take_gil", "runtime.lock2", "std::sys::sync::mutex::futex::Mutex::lock_contended",
      "parking_lot::raw_mutex::RawMutex::lock_slow", "__cxa_guard_acquire",
    }) do
      assert.equal("lock", waits.futex_word(name), name)
    end
    for _, name in ipairs({
      "pthread_cond_wait", "___pthread_cond_timedwait64", "sem_wait", "__new_sem_wait", "pthread_barrier_wait",
      "__pthread_clockjoin_ex", "runtime.notesleep", "std::sys::sync::condvar::futex::Condvar::wait",
      "std::sys::sync::thread_parking::futex::Parker::park",
    }) do
      assert.equal("idle", waits.futex_word(name), name)
    end
  end)

  it("does not take a program's own functions for the C library's", function()
    for _, name in ipairs({ "my_lock", "SyncMutexStats", "sem", "wait", "Condvar", "park_car", "" }) do
      assert.is_nil(waits.futex_word(name), name)
    end
  end)
end)
