std = "luajit"
max_line_length = 120
cache = false
files["spec/**/*_spec.lua"] = { std = "luajit+busted" }
files["rules"] = { std = "luajit" }
files[".busted"] = { std = "luajit" }
