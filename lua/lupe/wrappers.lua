--- Which functions allocate on behalf of others. A site is the first function, leaf first, that is none
-- of these: nobody is helped by "zmalloc leaks".
-- Kinds: `name` the demangled name is exactly this; `prefix` it begins with this; `module` the module's
-- file name begins with this (the agent, the allocator, the C and C++ runtimes). The store only matches.
-- @module lupe.wrappers

local function words(text)
  local list = {}
  for word in text:gmatch("%S+") do list[#list + 1] = word end
  return list
end

local MODULES = words([[
  liblupe-agent.so libjemalloc.so libc.so libc-2. libstdc++.so libc++.so libc++abi.so libgcc_s.so ld-linux
  ld-2. ld.so libpthread libdl.so libm.so libasan.so [vdso]
]])

-- libc's own interface; also where a program links its allocator statically.
local LIBC = words([[
  malloc calloc realloc reallocarray free memalign aligned_alloc posix_memalign valloc pvalloc strdup strndup
  wcsdup asprintf vasprintf getline getdelim open_memstream
  __libc_malloc __libc_calloc __libc_realloc __libc_memalign __strdup __strndup
]])

local JEMALLOC = words([[
  mallocx rallocx xallocx dallocx sdallocx imalloc imalloc_body ialloc irallocx_prof arena_malloc
  prof_tctx_create prof_alloc_prep prof_backtrace prof_malloc_sample_object
]])

local JEMALLOC_PREFIXES = words([[ je_ _rjem_ jemalloc_ prof_backtrace_ imalloc_ do_rallocx arena_ralloc
  tcache_ malloc_default fallback_impl ]])

-- Helpers that begin with x, by GNU's custom, and the same idea in other clothes.
local CHECKED = words([[
  xmalloc xcalloc xrealloc xzalloc xnmalloc xnrealloc x2realloc x2nrealloc xmemdup xstrdup xstrndup xmemalign
  xasprintf xvasprintf xmallocarray xreallocarray ximalloc xizalloc xcharalloc
  ecalloc emalloc erealloc estrdup safe_malloc safe_calloc safe_realloc safe_strdup checked_malloc
  mem_alloc mem_calloc mem_realloc my_malloc my_realloc my_strdup
  bson_malloc bson_malloc0 bson_realloc bson_strdup av_malloc av_mallocz av_calloc av_realloc av_strdup
  xmlMalloc xmlRealloc xmlStrdup xmlStrndup sqlite3_malloc sqlite3_malloc64 sqlite3_realloc sqlite3_realloc64
  sqlite3Malloc sqlite3MallocZero sqlite3Realloc sqlite3DbMallocRaw sqlite3DbMallocZero sqlite3DbRealloc
  sqlite3MemMalloc sqlite3MemRealloc dbMallocRawFinish
]])

local REDIS = words([[
  zmalloc zcalloc zrealloc zstrdup ztrymalloc ztrycalloc ztryrealloc ztrymalloc_usable ztrycalloc_usable
  ztryrealloc_usable zmalloc_usable zcalloc_usable zrealloc_usable zcalloc_num zmalloc_no_tcache
  extend_to_usable valkey_malloc valkey_calloc valkey_realloc s_malloc s_realloc s_trymalloc hi_malloc
  hi_calloc hi_realloc hi_strdup
]])
local REDIS_PREFIXES = words([[ ztrymalloc_usable_internal ztrycalloc_usable_internal
  ztryrealloc_usable_internal ]])

local GLIB = words([[
  g_malloc g_malloc0 g_malloc_n g_malloc0_n g_realloc g_realloc_n g_try_malloc g_try_malloc0 g_try_malloc_n
  g_try_realloc g_try_realloc_n g_memdup g_memdup2 g_strdup g_strndup g_strdup_printf g_strdup_vprintf
  g_vasprintf g_slice_alloc g_slice_alloc0 g_slice_copy g_aligned_alloc g_aligned_alloc0
]])

local NGINX = words([[
  ngx_alloc ngx_calloc ngx_memalign ngx_palloc ngx_pnalloc ngx_pcalloc ngx_pmemalign ngx_palloc_block
  ngx_palloc_large ngx_palloc_small ngx_create_pool ngx_create_temp_buf ngx_array_create ngx_array_push
  ngx_array_push_n ngx_list_create ngx_list_push
]])

local APR = words([[ apr_palloc apr_pcalloc apr_pcalloc_debug apr_pstrdup apr_pstrndup apr_pmemdup
  apr_allocator_alloc allocator_alloc ]])

local LIBUV_LUA = words([[ uv__malloc uv__calloc uv__realloc uv__reallocf uv__strdup uv__strndup l_alloc
  luaM_realloc_ luaM_malloc_ luaM_growaux_ lj_mem_realloc lj_mem_newgco lj_mem_grow lj_alloc_f lj_alloc_malloc
  lj_alloc_realloc event_mm_malloc_ event_mm_calloc_ event_mm_realloc_ event_mm_strdup_ ]])

local SSL = words([[
  CRYPTO_malloc CRYPTO_zalloc CRYPTO_realloc CRYPTO_clear_realloc CRYPTO_strdup CRYPTO_strndup CRYPTO_memdup
  CRYPTO_secure_malloc CRYPTO_secure_zalloc OPENSSL_malloc OPENSSL_zalloc gnutls_malloc gnutls_calloc
  gnutls_realloc
]])

local PYTHON = words([[
  PyMem_Malloc PyMem_Calloc PyMem_Realloc PyMem_RawMalloc PyMem_RawCalloc PyMem_RawRealloc PyObject_Malloc
  PyObject_Calloc PyObject_Realloc _PyMem_RawMalloc _PyMem_RawCalloc _PyMem_RawRealloc _PyMem_RawStrdup
  _PyMem_Strdup _PyMem_DebugRawAlloc _PyMem_DebugRawMalloc _PyObject_Malloc _PyObject_Calloc _PyObject_Realloc
  new_arena pymalloc_alloc _PyObject_ArenaMmap _PyObject_GC_Alloc _PyObject_GC_Malloc _PyObject_GC_New
  _PyObject_GC_NewVar _PyObject_New _PyObject_NewVar _PyObject_GC_Resize PyType_GenericAlloc
  _PyType_AllocNoTrack
]])

local RUST = words([[
  __rust_alloc __rust_alloc_zeroed __rust_realloc __rg_alloc __rg_alloc_zeroed __rg_realloc __rdl_alloc
  __rdl_alloc_zeroed __rdl_realloc __rustc::__rust_alloc __rustc::__rust_realloc
]])
local RUST_PREFIXES = words([[
  alloc::alloc:: alloc::raw_vec:: alloc::vec:: alloc::boxed:: alloc::string:: alloc::sync:: alloc::rc::
  alloc::slice:: alloc::borrow:: alloc::fmt:: alloc::collections:: alloc::str:: <alloc:: hashbrown:: <hashbrown::
  core::alloc:: <core::alloc:: std::alloc:: std::sys::alloc:: tikv_jemallocator::
  <tikv_jemallocator:: jemallocator:: <jemallocator:: mimalloc:: bytes::bytes_mut:: bytes::bytes::
]])

-- Templates of the C++ library are compiled into the program, so their module says nothing.
local CXX_PREFIXES = {
  "operator new", "std::allocator", "std::__new_allocator", "__gnu_cxx::", "std::__cxx11::", "std::vector<",
  "std::deque<", "std::list<", "std::map<", "std::set<", "std::multimap<", "std::multiset<", "std::unordered_",
  "std::_Rb_tree", "std::_Hashtable", "std::__detail::", "std::_Deque_base", "std::_Vector_base", "std::_List_base",
  "std::basic_string", "std::shared_ptr<", "std::__shared_", "std::_Sp_counted", "std::make_shared",
  "std::make_unique", "std::allocate_shared", "std::pmr::", "std::function<", "std::_Function", "std::__1::",
  "std::__uninitialized", "std::uninitialized", "std::_Construct", "std::construct_at", "std::__allocate_guarded",
}

local list = {}

local function add(kind, texts)
  for _, text in ipairs(texts) do list[#list + 1] = { kind = kind, text = text } end
end

add("module", MODULES)
for _, names in ipairs({ LIBC, JEMALLOC, CHECKED, REDIS, GLIB, NGINX, APR, LIBUV_LUA, SSL, PYTHON, RUST }) do
  add("name", names)
  for _, name in ipairs(names) do add("prefix", { name .. "." }) end -- the compiler's copies: .part.0, .constprop.0
end
for _, prefixes in ipairs({ JEMALLOC_PREFIXES, REDIS_PREFIXES, RUST_PREFIXES, CXX_PREFIXES }) do
  add("prefix", prefixes)
end
-- A member template is printed with what it returns in front.
for _, prefix in ipairs(CXX_PREFIXES) do add("prefix", { "void " .. prefix, "char* " .. prefix }) end

return list
