require("spec.support")
local time = require("lupe.time")

describe("a time in RFC 3339", function()
  it("reads back as it was written", function()
    for _, text in ipairs({
      "2026-11-23T06:07:14.560Z", "2024-02-29T00:00:00.000Z", "2000-03-01T12:00:00.001Z", "1999-12-31T23:59:59.999Z",
      "2100-02-28T23:59:59.000Z",
    }) do
      assert.equal(text, time.rfc3339(time.parse(text)))
    end
  end)

  it("may have an offset, a space for its T or its plus, and any fraction", function()
    local expected = 1795414034000
    for _, text in ipairs({
      "2026-11-23T06:07:14Z", "2026-11-23t06:07:14z", "2026-11-23 08:07:14+02:00", "2026-11-23T08:07:14 02:00",
      "2026-11-22T23:37:14-06:30", "2026-11-23T06:07:14.000000Z",
    }) do
      assert.equal(expected, time.parse(text), text)
    end
  end)

  it("is refused where it is none", function()
    for _, text in ipairs({
      "", "now", "2026-11-23", "2026-11-23T06:07:14", "2026-11-23T06:07Z", "2026-13-01T00:00:00Z",
      "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T06:60:14Z",
      "2026-11-23T06:07:14.Z", "2026-11-23T06:07:145Z", "2026-11-23T06:07:14+2:00", "2026-11-23T06:07:14+24:00",
      "2026-11-23T06:07:14Zulu",
    }) do
      assert.is_nil(time.parse(text), text)
    end
  end)
end)
