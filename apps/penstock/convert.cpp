// `penstock convert`: a model from a Hugging Face directory to a GGUF file, or back.
#include <iostream>
#include <map>
#include <memory>

#include "base/progress_line.h"
#include "commands.h"
#include "model_converter.h"

namespace penstock {
namespace {

struct ConvertOptions {
  std::string input, output, type = "keep";
  bool overwrite = false;
};

const std::map<std::string, std::optional<formats::GgmlType>> kTypes = {{"keep", std::nullopt},
                                                                        {"f32", formats::GgmlType::kF32},
                                                                        {"f16", formats::GgmlType::kF16},
                                                                        {"bf16", formats::GgmlType::kBF16},
                                                                        {"q8_0", formats::GgmlType::kQ8_0},
                                                                        {"q4_0", formats::GgmlType::kQ4_0}};

uint64_t bytes_of(const std::filesystem::path& path) {
  if (std::filesystem::is_regular_file(path)) return std::filesystem::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) bytes += entry.file_size();
  return bytes;
}

void convert(const ConvertOptions& options) {
  try {
    ProgressLine line(std::cerr, ProgressLine::for_stderr());
    convert_model({options.input, options.output, kTypes.at(options.type), options.overwrite}, [&](double share, const std::string& tensor) { line.update(share, tensor); });
    line.finish();
  } catch (const Error& e) {
    fail("convert", e);
  } catch (const std::filesystem::filesystem_error& e) {
    fail("convert", error(Code::kDataLoss, "{}", e.what()));
  }
  fmt::print("{}: {:.1f} MiB\n  try it: penstock run {} \"Once upon a time\"\n", options.output, static_cast<double>(bytes_of(options.output)) / (1 << 20), options.output);
}

}  // namespace

void add_convert_command(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  auto* command = app.add_subcommand("convert", "Convert a model between a Hugging Face directory and a GGUF file");
  command->add_option("input", options->input, "A Hugging Face directory, or a GGUF file")->required()->type_name("IN");
  command->add_option("output", options->output, "A name that ends with .gguf, or else a folder")->required()->type_name("OUT");
  command->add_option("--type", options->type, "What the weights become: keep, f32, f16, bf16; for GGUF also q8_0, q4_0")->check(CLI::IsMember({"keep", "f32", "f16", "bf16", "q8_0", "q4_0"}))->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "Replace an output that is there");
  command->footer("With keep, a way there and back changes no bit; blocks of integers become f16 in a Hugging Face directory.\n"
                  "Examples:\n"
                  "  penstock convert models/smollm2 smollm2.gguf --type q8_0\n"
                  "  penstock convert SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2\n"
                  "The output appears under its name only when it is complete.");
  command->callback([options] { convert(*options); });
}

}  // namespace penstock
