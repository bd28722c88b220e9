--- What a thread that stands still waits for, by its system call: x86-64 numbers, names and classes.
--
-- Classes: "io" it waits for a device, a file or a peer; "lock" for another thread to leave; "idle" for work, or for
-- time to pass, so the program is not slower for it. A read from a peer that has nothing to say looks like one from a
-- slow peer, and counts as I/O; who waits for many peers at once (epoll, poll, select), or for a new one (accept), is
-- idle.
-- A futex is a lock or not by the function that waits in it; see `futex_word`.
-- @module lupe.waits

local bit = require("bit")

local waits = {}

waits.NO_SYSCALL = 0xffff -- LUPE_NO_SYSCALL of record.h: a page fault
waits.FUTEX = 202

-- number name ...; what is missing here is "syscall N" and I/O: drivers and file systems wait in any.
local IO = [[
  0 read 1 write 2 open 3 close 4 stat 5 fstat 6 lstat 16 ioctl 17 pread64 18 pwrite64 19 readv 20 writev 21 access
  26 msync 40 sendfile 42 connect 44 sendto 45 recvfrom 46 sendmsg 47 recvmsg 48 shutdown 59 execve
  74 fsync 75 fdatasync 76 truncate 77 ftruncate 78 getdents 79 getcwd 80 chdir 82 rename 83 mkdir 84 rmdir 85 creat
  86 link 87 unlink 88 symlink 89 readlink 90 chmod 92 chown 133 mknod 137 statfs 138 fstatfs 162 sync 165 mount
  166 umount2 187 readahead 188 setxattr 191 getxattr 208 io_getevents 209 io_submit 217 getdents64 221 fadvise64
  257 openat 258 mkdirat 262 newfstatat 263 unlinkat 264 renameat 267 readlinkat 269 faccessat 275 splice 276 tee
  277 sync_file_range 278 vmsplice 285 fallocate 295 preadv 296 pwritev 299 recvmmsg 306 syncfs 307 sendmmsg
  316 renameat2 322 execveat 326 copy_file_range 327 preadv2 328 pwritev2 332 statx 333 io_pgetevents 437 openat2
]]
-- What changes the address space waits for the other threads' page faults and changes; flock for another process.
local LOCK = [[ 9 mmap 10 mprotect 11 munmap 12 brk 25 mremap 28 madvise 72 fcntl 73 flock 65 semop 220 semtimedop ]]
local IDLE = [[
  7 poll 23 select 24 sched_yield 34 pause 35 nanosleep 36 getitimer 43 accept 61 wait4 69 msgsnd 70 msgrcv
  127 rt_sigpending 128 rt_sigtimedwait 130 rt_sigsuspend 202 futex 219 restart_syscall 230 clock_nanosleep
  232 epoll_wait 242 mq_timedsend 243 mq_timedreceive 247 waitid 270 pselect6 271 ppoll 281 epoll_pwait 288 accept4
  426 io_uring_enter 441 epoll_pwait2 449 futex_waitv 455 futex_wait
]]

local NAMES, CLASSES = {}, {}
for class, text in pairs({ io = IO, lock = LOCK, idle = IDLE }) do
  for number, name in text:gmatch("(%d+) (%S+)") do
    NAMES[tonumber(number)], CLASSES[tonumber(number)] = name, class
  end
end

--- What a state word of a waiting sample says (see record.h): the number of the system call, and a futex's command.
function waits.parts(state) return bit.band(bit.rshift(state, 16), 0xffff), bit.band(bit.rshift(state, 8), 0xff) end

--- "pread64", "page fault", or "syscall 999".
function waits.name(syscall)
  if syscall == waits.NO_SYSCALL then return "page fault" end
  return NAMES[syscall] or ("syscall %d"):format(syscall)
end

--- "io", "lock" or "idle"; of a futex what it is where no function says better.
-- @param[opt=0] futex its command, as it was passed: glibc's mutexes wait with FUTEX_WAIT, and all else of it that
--   waits with FUTEX_WAIT_BITSET
function waits.class(syscall, futex)
  if syscall == waits.FUTEX then
    local command = bit.band(futex or 0, 0x7f) -- without FUTEX_PRIVATE_FLAG; FUTEX_CLOCK_REALTIME does not fit
    local locks = command == 0 or command == 6 or command == 13 -- FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_LOCK_PI2
    return locks and "lock" or "idle"
  end
  return CLASSES[syscall] or "io"
end

-- Who waits in a futex. Exact names, and what names begin with; libc's own aliases have underscores in front.
local LOCKS = [[ pthread_mutex_lock pthread_mutex_timedlock pthread_mutex_clocklock pthread_mutex_cond_lock
  pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock
  pthread_rwlock_clockrdlock pthread_rwlock_clockwrlock lll_lock_wait lll_lock_wait_private pthread_once
  cxa_guard_acquire take_gil runtime.lock2 runtime.lock runtime.lockWithRank mtx_lock mtx_timedlock ]]
local IDLES = [[ pthread_cond_wait pthread_cond_timedwait pthread_cond_clockwait cnd_wait cnd_timedwait
  sem_wait sem_timedwait sem_clockwait pthread_barrier_wait
  pthread_join pthread_timedjoin_np pthread_clockjoin_np pthread_clockjoin_ex thrd_join
  runtime.notesleep runtime.notetsleep runtime.notetsleepg runtime.futexsleep aio_suspend gai_suspend ]]
local PIECES = { -- of Rust's names, where a plain futex stands under all of them
  { "Condvar", "idle" }, { "Parker", "idle" }, { "::park", "idle" }, { "Mutex", "lock" }, { "RwLock", "lock" },
  { "Once::", "lock" }, { "ReentrantLock", "lock" },
}

local BY_NAME = {}
for name in LOCKS:gmatch("%S+") do BY_NAME[name] = "lock" end
for name in IDLES:gmatch("%S+") do BY_NAME[name] = "idle" end

--- libc's aliases and versions of one function under its name: "__new_sem_wait@GLIBC_2.34" is "sem_wait".
local function plain(name)
  return (name:gsub("@.*$", ""):gsub("^_+", ""):gsub("^new_", ""):gsub("64$", ""))
end

--- "lock" or "idle" where a function of this name, found above a futex call, says what is waited for; else nil.
function waits.futex_word(name)
  local word = BY_NAME[name] or BY_NAME[plain(name)]
  if word then return word end
  local parking_lot = name:find("parking_lot", 1, true)
  if not (parking_lot or name:find("std::", 1, true)) then return nil end
  for _, piece in ipairs(PIECES) do
    if name:find(piece[1], 1, true) or (parking_lot and name:find(piece[1]:lower(), 1, true)) then return piece[2] end
  end
end

return waits
