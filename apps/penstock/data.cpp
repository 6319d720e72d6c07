// `penstock data`: text into token shards, what is in them, and whether it is intact.
#include <algorithm>
#include <iostream>
#include <memory>
#include <thread>

#include "base/progress_line.h"
#include "commands.h"
#include "data/prepare.h"
#include "stop_signals.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

struct PrepareArguments {
  data::PrepareOptions options;
  uint64_t shard_mib = 256, max_document_mib = 64;
  bool quiet = false;
};

std::string split_line(const char* name, const data::SplitInfo& split) {
  double bytes = 0;
  for (const auto& shard : split.shards) bytes += static_cast<double>(shard.bytes);
  return fmt::format("{:<11} {:>14} {:>12} {:>14} {:>7} {:>11.1f}\n", name, split.tokens, split.documents, split.text_bytes, split.shards.size(), bytes / (1 << 20));
}

void print_folder(const fs::path& path, const data::TokenFolder& folder) {
  const std::string end = folder.tokenizer.end_id >= 0 ? fmt::format("{}", folder.tokenizer.end_id) : "none";
  fmt::print("{}: {}, vocabulary of {}, end token {}, tokenizer {:016x}\n", path.string(), folder.chat ? "conversations" : "text", folder.tokenizer.vocab_size,
             end, folder.tokenizer.fingerprint);
  fmt::print("{:<11} {:>14} {:>12} {:>14} {:>7} {:>11}\n", "split", "tokens", "documents", "text bytes", "shards", "MiB");
  fmt::print("{}{}", split_line("train", folder.train), split_line("validation", folder.validation));
}

void run_prepare(PrepareArguments& arguments) {
  try {
    data::PrepareOptions& options = arguments.options;
    options.shard_bytes = arguments.shard_mib << 20;
    options.source.max_document_bytes = arguments.max_document_mib << 20;
    const StopSignals signals;
    options.stopped = [&] { return signals.count() > 0; };
    ProgressLine line(std::cerr, ProgressLine::for_stderr());
    if (!arguments.quiet) options.progress = [&](double done, const std::string& text) { line.update(done, text); };
    const data::PrepareResult result = data::prepare(options);
    line.finish();
    print_folder(options.output, result.folder);
    if (result.files_left_out > 0) fmt::print("left out: {} of {} files, which are no text\n", result.files_left_out, result.files);
    if (result.folder.validation.tokens == 0) {
      fmt::print("nothing is held out, and training needs something to validate on: documents are held out whole; cut the text into more of them (--separator), hold out "
                 "a larger share (--validation-fraction) or a file (--validation)\n");
    }
    if (result.empty_documents > 0) fmt::print("left out: {} empty documents\n", result.empty_documents);
  } catch (const Error& e) {
    fail("data prepare", e);
  }
}

void add_prepare(CLI::App& parent) {
  auto arguments = std::make_shared<PrepareArguments>();
  data::PrepareOptions& options = arguments->options;
  data::SourceOptions& source = options.source;
  options.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  auto* command = parent.add_subcommand("prepare", "Turn text or JSON lines into token shards to train on");
  command->add_option("input", options.inputs, "Files, or folders whose files are all read")->required()->type_name("PATH");
  command->add_option("--output", options.output, "The folder to make")->required()->type_name("DIR");
  command->add_option("--tokenizer", options.tokenizer, "A model directory with the tokenizer's files (default: one token a byte)")->type_name("DIR");
  command->add_option("--format", source.format, "auto: JSON lines where a name ends in .jsonl or .ndjson, else text; chat: JSON lines with messages")
      ->transform(CLI::CheckedTransformer(std::map<std::string, data::TextFormat>{
          {"auto", data::TextFormat::kAuto}, {"text", data::TextFormat::kText}, {"jsonl", data::TextFormat::kJsonl}, {"chat", data::TextFormat::kChat}}))
      ->option_text("auto|text|jsonl|chat");
  command->add_option("--separator", source.separator, "Text: a line of just this cuts documents; '' = one document a file (default %)")->type_name("LINE");
  command->add_option("--key", source.text_key, "JSON lines: the key of the text (default text)")->type_name("NAME");
  auto* fraction = command->add_option("--validation-fraction", options.validation_fraction, "Of the documents, held out evenly (default 0.1)")
                       ->check(CLI::Range(0.0, 0.999))
                       ->type_name("SHARE");
  command->add_option("--validation", options.validation_inputs, "A file or folder that is held out, instead of a share of the input; may be given several times")
      ->type_name("PATH")
      ->allow_extra_args(false)
      ->excludes(fraction);
  command->add_option("--invalid-utf8", source.invalid_utf8, "stop, replace (by U+FFFD) or keep (for one token a byte; default stop)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, data::InvalidUtf8>{
          {"stop", data::InvalidUtf8::kStop}, {"replace", data::InvalidUtf8::kReplace}, {"keep", data::InvalidUtf8::kKeep}}))
      ->option_text("stop|replace|keep");
  command->add_option("--max-document-mib", arguments->max_document_mib, "Larger documents are an error (default 64)")
      ->check(CLI::Range(1, 65536))
      ->type_name("MIB");
  command->add_option("--shard-mib", arguments->shard_mib, "A new file is begun beyond this size (default 256)")->check(CLI::Range(1, 1 << 20))->type_name("MIB");
  command->add_option("--threads", options.threads, fmt::format("That turn text into tokens (default {})", options.threads))
      ->check(CLI::Range(1, kMaxThreads))
      ->type_name("N");
  command->add_flag("--overwrite", options.overwrite, "Replace a folder of prepared data when the new one is complete");
  command->add_flag("--quiet", arguments->quiet, "No progress line");
  command->footer("The same input gives the same bytes, whatever the number of threads. The folder appears when it is complete.\n"
                  "Examples:\n"
                  "  penstock data prepare texts/ --output data/texts\n"
                  "  penstock data prepare chats.jsonl --format chat --tokenizer models/smollm-instruct --output data/chats\n"
                  "  penstock data prepare web.jsonl --key content --tokenizer models/smollm --output data/web\n"
                  "  penstock data prepare book.txt --separator '' --validation last-chapter.txt --output data/book");
  command->callback([arguments] { run_prepare(*arguments); });
}

void add_with_folder(CLI::App& parent, const char* name, const char* help, void (*run)(const fs::path&)) {
  auto folder = std::make_shared<fs::path>();
  auto* command = parent.add_subcommand(name, help);
  command->add_option("folder", *folder, "A folder that `penstock data prepare` made")->required()->type_name("DIR");
  command->callback([folder, name, run] {
    try {
      run(*folder);
    } catch (const Error& e) {
      fail(fmt::format("data {}", name), e);
    }
  });
}

void info(const fs::path& path) {
  const data::TokenFolder folder = data::read_token_folder(path).value();
  for (const data::SplitInfo* split : {&folder.train, &folder.validation}) (void)data::open_shards(path, folder, *split);  // all there, headers intact
  print_folder(path, folder);
}

void verify(const fs::path& path) {
  ProgressLine line(std::cerr, ProgressLine::for_stderr());
  data::verify_token_folder(path, [&](double done) { line.update(done, path.string()); });
  line.finish();
  fmt::print("{}: intact\n", path.string());
}

}  // namespace

void add_data_command(CLI::App& app) {
  auto* command = app.add_subcommand("data", "Prepare the data of training runs");
  command->require_subcommand(1);
  add_prepare(*command);
  add_with_folder(*command, "info", "Say what is in a folder of prepared data", info);
  add_with_folder(*command, "verify", "Read every byte and compare checksums; exit code 1 when one differs", verify);
  command->footer("`penstock data COMMAND --help` explains a command, with examples.");
}

}  // namespace penstock
