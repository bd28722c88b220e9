--- Whose time a stack's time is: which functions stand for others, and which only begin a thread.
-- The time of libc, of the loader, of the vdso and of allocators belongs to the function that called them: nobody is
-- helped by "memcpy is slow". lupe's agent runs inside the allocator that it watches, and is passed over with it.
-- @module lupe.attribution

local attribution = {}

local function begins(text, with) return text:sub(1, #with) == with end

local PASSED_OVER = {
  "libc.so", "libc-", "ld-linux", "ld-2", "ld.so", "ld-musl", "libpthread", "[vdso]", "linux-vdso", "liblupe-agent.so",
}
local ALLOCATORS = { "libjemalloc", "libtcmalloc", "libmimalloc" }

--- True where a module's functions work for their callers: libc, the loader, the vdso.
-- @param file_name of the module
function attribution.passed_over(file_name)
  for _, prefix in ipairs(PASSED_OVER) do
    if begins(file_name, prefix) then return true end
  end
  return false
end

local ALLOCATING = {}
for name in ([[ malloc free calloc realloc reallocarray memalign aligned_alloc posix_memalign valloc pvalloc
  malloc_usable_size cfree mallocx rallocx xallocx dallocx sdallocx free_sized free_aligned_sized
  __libc_malloc __libc_free __libc_calloc __libc_realloc __libc_memalign
  _int_malloc _int_free _int_realloc malloc_consolidate sysmalloc tcache_init ]]):gmatch("%S+") do
  ALLOCATING[name] = true
end
local ALLOCATING_PREFIXES = {
  "operator new", "operator delete", "je_", "_rjem_", "mi_", "tc_malloc", "tc_free", "tc_new",
}

--- True for what allocates and frees memory.
-- @param name of the function, @param file_name of its module
function attribution.allocates(name, file_name)
  for _, prefix in ipairs(ALLOCATORS) do
    if begins(file_name, prefix) then return true end
  end
  if ALLOCATING[name] then return true end
  for _, prefix in ipairs(ALLOCATING_PREFIXES) do
    if begins(name, prefix) then return true end
  end
  return false
end

local MEMORY = {}
for name in ([[ memcpy memmove memset memcmp memchr memrchr memmem mempcpy memccpy bcopy bzero bcmp wmemcpy wmemset
  strlen strnlen strcmp strncmp strchr strrchr strcpy strncpy stpcpy strcat rawmemchr strchrnul ]]):gmatch("%S+") do
  MEMORY[name] = true
end

local VARIANTS = { "_avx", "_sse", "_evex", "_erms", "_ssse", "_chk" }

--- The name that programs call it by, of what moves, fills and searches memory: "memmove" for its variants, such as
-- "__memmove_avx_unaligned_erms" and "__GI_memmove"; nil for all else.
function attribution.memory_word(name)
  if MEMORY[name] then return name end
  local core, rest = name:gsub("^__GI_", ""):match("^_*(%l+)(.*)$")
  if not MEMORY[core] then return nil end
  if rest == "" then return core end
  for _, variant in ipairs(VARIANTS) do
    if begins(rest, variant) then return core end
  end
  return nil
end

local BEGINNINGS = { _start = true, start_thread = true }
local BEGINNING_PREFIXES = { "__libc_start_", "clone", "__clone" }

--- True for what does nothing but begin a thread.
-- @param name of the function, @param libc whether libc's (or the loader's)
-- @param named false: it has no symbol, so where it ends a stack it is one of these
function attribution.begins_thread(name, libc, named)
  if BEGINNINGS[name] then return true end
  if not libc then return false end
  if not named then return true end
  for _, prefix in ipairs(BEGINNING_PREFIXES) do
    if begins(name, prefix) then return true end
  end
  return false
end

return attribution
