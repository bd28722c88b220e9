require("spec.support")
local attribution = require("lupe.attribution")

describe("attribution", function()
  it("passes over libc, the loader and the vdso, and nothing else that looks like them", function()
    for _, name in ipairs({ "libc.so.6", "libc-2.31.so", "ld-linux-x86-64.so.2", "libpthread.so.0", "[vdso]",
      "liblupe-agent.so" }) do
      assert.is_true(attribution.passed_over(name), name)
    end
    for _, name in ipairs({ "libcurl.so.4", "libcrypto.so.3", "libc++.so.1", "libm.so.6", "ld", "redis-server", "" }) do
      assert.is_false(attribution.passed_over(name), name)
    end
  end)

  it("knows an allocator by its module, and by its functions where it is linked in", function()
    assert.is_true(attribution.allocates("arena_bin_malloc_hard", "libjemalloc.so.2"))
    assert.is_true(attribution.allocates("malloc", "libc.so.6"))
    assert.is_true(attribution.allocates("je_arena_malloc_hard", "redis-server"))
    assert.is_true(attribution.allocates("operator new(unsigned long)", "libstdc++.so.6"))
    assert.is_false(attribution.allocates("malloc_stats_of_mine", "app"))
    assert.is_false(attribution.allocates("operator==(A, B)", "app"))
    assert.is_false(attribution.allocates("freeze", "app"))
  end)

  it("knows what moves memory, in all its variants", function()
    for name, word in pairs({
      memcpy = "memcpy", __memmove_avx_unaligned_erms = "memmove", __memset_avx2_unaligned = "memset",
      __strlen_evex = "strlen", __memcmp_sse4_1 = "memcmp", __memcpy_ssse3 = "memcpy", __GI_memcpy = "memcpy",
      __memcpy_chk = "memcpy", strchr = "strchr", __memmove_avx512_no_vzeroupper = "memmove",
    }) do
      assert.equal(word, attribution.memory_word(name), name)
    end
    for _, name in ipairs({ "memcpyfile", "memory_pool", "strlen_utf8", "app_memcpy", "memset_pattern", "" }) do
      assert.is_nil(attribution.memory_word(name), name)
    end
  end)

  it("knows what only begins a thread", function()
    for _, name in ipairs({ "start_thread", "clone", "clone3", "__clone", "__libc_start_main_impl",
      "__libc_start_call_main" }) do
      assert.is_true(attribution.begins_thread(name, true, true), name)
    end
    assert.is_true(attribution.begins_thread("_start", false, true))
    assert.is_true(attribution.begins_thread("libc.so.6+0x27249", true, false))
    assert.is_false(attribution.begins_thread("clone_list", false, true))
    assert.is_false(attribution.begins_thread("app+0x1234", false, false))
    assert.is_false(attribution.begins_thread("qsort_r", true, true))
  end)
end)
