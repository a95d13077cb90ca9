[
  inputs: ["mix.exs", ".formatter.exs", "{lib,test,bench}/**/*.{ex,exs}"]
]
