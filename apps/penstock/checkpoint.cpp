// `penstock checkpoint`: what a run has saved, whether it is intact, and its weights as a model directory.
#include <iostream>
#include <memory>
#include <set>

#include "base/progress_line.h"
#include "commands.h"
#include "formats/checkpoint_folder.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

struct CheckpointOptions {
  std::string path, output;
};

// A checkpoint itself, or all of a run folder or of its checkpoints folder.
std::vector<fs::path> checkpoints_of(const fs::path& path) {
  if (fs::exists(path / "manifest.json")) return {path};
  const fs::path folder = fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path;
  if (!fs::is_directory(folder)) throw error(Code::kNotFound, "{}: no such folder; expected a run folder or a checkpoint", path.string());
  auto all = formats::finished_checkpoints(folder);
  if (all.empty()) throw error(Code::kNotFound, "{}: no checkpoint is in it; set checkpoint.every_steps to have some written", folder.string());
  return all;
}

uint64_t bytes_of(const formats::CheckpointManifest& manifest) {
  uint64_t bytes = 0;
  for (const auto& [name, file] : manifest.files) bytes += file.bytes;
  return bytes;
}

void list(const CheckpointOptions& options) {
  const auto all = checkpoints_of(options.path);
  fmt::print("{:>10} {:>14} {:>9} {:>10} {:>10} {:>6}  {}\n", "step", "tokens", "seconds", "validation", "MiB", "files", "path");
  for (const fs::path& path : all) {
    auto manifest = formats::read_manifest(path);
    if (!manifest) {
      fmt::print("{:>10} {}\n", "incomplete", manifest.error().message());
      continue;
    }
    const std::string loss = manifest->validation_loss ? fmt::format("{:.4f}", *manifest->validation_loss) : "-";
    fmt::print("{:>10} {:>14} {:>9.1f} {:>10} {:>10.1f} {:>6}  {}\n", manifest->step, manifest->tokens, manifest->elapsed_seconds, loss,
               static_cast<double>(bytes_of(*manifest)) / (1 << 20), manifest->files.size(), path.string());
  }
}

void verify(const CheckpointOptions& options) {
  int damaged = 0;
  for (const fs::path& path : checkpoints_of(options.path)) {
    try {
      ProgressLine line(std::cerr, ProgressLine::for_stderr());
      formats::verify_checkpoint(path, [&](double done) { line.update(done, path.filename().string()); });
      line.finish();
      const bool old = std::ranges::any_of(formats::read_manifest(path).value().files, [](const auto& file) { return file.second.tensors.empty(); });
      fmt::print("{}: {}\n", path.string(), old ? "complete (written by an older version, without checksums)" : "intact");
    } catch (const Error& e) {
      fmt::print("{}: DAMAGED: {}\n", path.string(), e.message());
      ++damaged;
    }
  }
  if (damaged > 0) throw error(Code::kDataLoss, "{} damaged", damaged == 1 ? "one checkpoint is" : fmt::format("{} checkpoints are", damaged));
}

void export_model(const CheckpointOptions& options) {
  const auto all = checkpoints_of(options.path);
  ProgressLine line(std::cerr, ProgressLine::for_stderr());
  formats::export_checkpoint(all.back(), options.output, [&](double done) { line.update(done, all.back().filename().string()); });
  line.finish();
  fmt::print("{}: the weights of {}\n  serve them: penstock serve --models NAME={}\n", options.output, all.back().string(), options.output);
}

CLI::App* add(CLI::App& parent, const char* name, const char* help, const std::shared_ptr<CheckpointOptions>& options, void (*run)(const CheckpointOptions&)) {
  auto* command = parent.add_subcommand(name, help);
  command->add_option("path", options->path, "A run folder, or one checkpoint")->required();
  command->callback([options, run] {
    try {
      run(*options);
    } catch (const Error& e) {
      fail("checkpoint", e);
    }
  });
  return command;
}

}  // namespace

void add_checkpoint_command(CLI::App& app) {
  auto options = std::make_shared<CheckpointOptions>();
  auto* command = app.add_subcommand("checkpoint", "List, verify and export the checkpoints of training runs");
  command->require_subcommand(1);
  add(*command, "ls", "Steps, losses and sizes", options, list);
  add(*command, "verify", "Read every byte and compare checksums; exit code 1 when one is damaged", options, verify);
  add(*command, "export", "Write the weights as a Hugging Face directory (of a run folder: the newest)", options, export_model)
      ->add_option("--output", options->output, "The directory, which must not exist")
      ->required();
  command->footer("Examples:\n"
                  "  penstock checkpoint ls runs/quickstart\n"
                  "  penstock checkpoint verify runs/quickstart\n"
                  "  penstock checkpoint export runs/quickstart/checkpoints/step-00000500 --output models/step500");
}

}  // namespace penstock
