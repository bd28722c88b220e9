local proof_words = require("lupe.proof_words")
local support = require("spec.support")

local HEADER = assert(support.read_file(support.root .. "/core/wire/proof.h"))

local FLAGS = {}
for _, setting in ipairs(require("lupe.settings")) do FLAGS[setting.flag or ""] = true end

describe("the words of leak proofs", function()
  it("have one for every outcome that the header has, and a sentence where it is not complete", function()
    local seen, count = {}, 0
    for name, number in HEADER:gmatch("\n  LUPE_PROOF_([%u_]+) = (%d+),") do
      number = tonumber(number)
      local is_outcome = HEADER:find("LUPE_PROOF_" .. name, 1, true) < HEADER:find("lupe_proof_outcome;", 1, true)
      if is_outcome and name ~= "OUTCOMES" and name ~= "VERSION" then
        local word, status, why = proof_words.outcome(number, 9, 2 ^ 20)
        assert.not_equal("unknown", word, name)
        assert.is_nil(seen[word], word .. " stands for two outcomes")
        assert.equal(number, proof_words.outcome_number(word))
        seen[word], count = true, count + 1
        for flag in (why or ""):gmatch("%-%-[%l%-]+") do assert.truthy(FLAGS[flag], flag) end
        assert.equal(name == "COMPLETE" and "complete" or number <= 10 and "refused" or "gave_up", status, name)
        assert.equal(name ~= "COMPLETE", why ~= nil, name)
        assert.is_nil((why or ""):find("%", 1, true), why)
      end
    end
    assert.equal(tonumber(HEADER:match("LUPE_PROOF_OUTCOMES = (%d+)")), count)
  end)

  it("say how far it came, and what the system said", function()
    local _, _, why = proof_words.outcome(11, 0, 3 * 2 ^ 30)
    assert.truthy(why:find("had read 3.00 GiB", 1, true), why)
    _, _, why = proof_words.outcome(9, 12)
    assert.truthy(why:find("(Cannot allocate memory)", 1, true), why)
    _, _, why = proof_words.outcome(14, 9)
    assert.truthy(why:find("(signal 9)", 1, true), why)
    _, _, why = proof_words.outcome(14, -3)
    assert.truthy(why:find("(exit status 3)", 1, true), why)
    _, _, why = proof_words.outcome(6, 0, 0, 5 * 2 ^ 20)
    assert.truthy(why:find("it has 5.00 MiB of anonymous memory, more than --proof-max-heap-mb", 1, true), why)
    assert.same({ "unknown", "gave_up" }, { unpack({ proof_words.outcome(99) }, 1, 2) })
  end)

  it("have a sentence for every place where pointers hide", function()
    local all, count = 0, 0
    for name, bit in HEADER:gmatch("\n  LUPE_HIDDEN_([%u_]+) = (%d+),") do
      bit = tonumber(bit)
      local said = proof_words.hidden(bit)
      assert.equal(1, #said, name)
      assert.equal(bit, proof_words.hidden_bit(name:lower()), name)
      all, count = all + bit, count + 1
    end
    assert.is_true(count > 5)
    assert.equal(count, #proof_words.hidden(all))
    assert.same({}, proof_words.hidden(0))
    assert.same({ "pointers may be where this lupe does not look" }, proof_words.hidden(2 ^ 30))
  end)
end)
