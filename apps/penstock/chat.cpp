// `penstock run` and `penstock chat`: a model of this machine in the terminal, without a server.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/utf8.h"
#include "chat_input.h"
#include "commands.h"
#include "config/environment.h"
#include "local_model.h"
#include "rpc/grpc_server.h"
#include "stop_signals.h"
#include "text/chat_prompt.h"

namespace penstock {
namespace {

constexpr size_t kLongestPrompt = 1 << 20;  // bytes

struct ChatCommandOptions {
  LocalModelOptions model;
  std::string prompt, system;
  bool has_prompt = false, raw = false;
  text::SamplingParams sampling;
  std::optional<uint64_t> seed;
};

using Messages = nlohmann::ordered_json;

void print_answer(std::string_view text) {
  static const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  std::string shown(text);
  // What a model writes must not steer the terminal.
  if (terminal) std::erase_if(shown, [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F; });
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  std::fflush(stdout);
}

// To standard error, dimmed on a terminal.
void print_aside(const std::string& line) {
  static const bool terminal = ::isatty(STDERR_FILENO) != 0;
  fmt::print(stderr, "{}{}{}\n", terminal ? "\033[2m" : "", line, terminal ? "\033[0m" : "");
}

void print_summary(const AnswerSummary& summary) {
  std::string line = fmt::format("{} tokens", summary.tokens);
  if (summary.first_token) {
    const double rest = to_seconds(summary.total - *summary.first_token);
    if (summary.tokens > 1 && rest > 0) line += fmt::format(" · {:.1f} tokens/s", (summary.tokens - 1) / rest);
    line += fmt::format(" · first after {:.0f} ms", to_seconds(*summary.first_token) * 1e3);
  }
  print_aside(fmt::format("{} · ended by {}", line, summary.reason));
}

// A conversation with one model.
class Conversation {
 public:
  Conversation(LocalModel& model, const StopSignals& signals, const ChatCommandOptions& options) : model_(model), signals_(signals), options_(options) { clear(); }

  void clear() {
    messages_ = Messages::array();
    if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
  }

  // An error leaves the conversation as it was before.
  Result<AnswerSummary> ask(const std::string& text) {
    const Messages before = messages_;
    messages_.push_back({{"role", "user"}, {"content", text}});
    text::OpenAiCall call;
    call.messages = messages_.dump();
    auto prompt = text::render_chat_prompt(model_.chat_template().value(), model_.tokenizer(), call);
    if (!prompt) {
      messages_ = before;
      return prompt.error();
    }
    std::string answer;
    auto summary = stream({.prompt = std::move(*prompt), .is_chat = true, .sampling = options_.sampling}, answer);
    if (summary) messages_.push_back({{"role", "assistant"}, {"content", answer}});
    else messages_ = before;
    return summary;
  }

  // The prompt as it is, without a template and without memory.
  Result<AnswerSummary> complete(const std::string& prompt) {
    std::string answer;
    return stream({.prompt = prompt, .is_chat = false, .sampling = options_.sampling}, answer);
  }

 private:
  Result<AnswerSummary> stream(text::GenerationRequest request, std::string& answer) {
    const int signals = signals_.count();
    const auto wanted = [&] { return signals_.count() == signals && std::ferror(stdout) == 0; };
    auto summary = model_.answer(std::move(request), wanted, [&](std::string_view piece) {
      answer += piece;
      print_answer(piece);
    });
    if (!answer.ends_with('\n')) print_answer("\n");
    if (summary) print_summary(*summary);
    return summary;
  }

  LocalModel& model_;
  const StopSignals& signals_;
  const ChatCommandOptions& options_;
  Messages messages_;
};

void print_help() {
  print_aside("/help        this\n"
              "/clear       forget the conversation\n"
              "/quit        end; Ctrl-D, too\n"
              "Ctrl-C       stops an answer\n"
              "a \\ at the end of a line continues it in the next one; \"\"\" before and behind a text of several lines\n"
              "//           a message that begins with /");
}

// True: it was a command; `over` tells whether it was the last one.
bool obey(std::string& message, Conversation& conversation, bool& over) {
  if (!message.starts_with('/')) return false;
  if (message.starts_with("//")) {
    message.erase(0, 1);
    return false;
  }
  if (message == "/quit" || message == "/exit") over = true;
  else if (message == "/help") print_help();
  else if (message == "/clear") {
    conversation.clear();
    print_aside("the conversation is forgotten");
  } else {
    print_aside(fmt::format("there is no command {}; /help lists them", message.substr(0, message.find(' ')).substr(0, 80)));
  }
  return true;
}

// Lines until the end of the input. Returns the exit code.
int converse(Conversation& conversation, const StopSignals& signals) {
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  LineReader lines;
  MessageAssembler assembler;
  int seen = signals.count();
  const auto interrupted = [&] { return signals.count() != seen; };
  for (bool over = false; !over;) {
    seen = signals.count();
    if (terminal) fmt::print(stderr, "{}", assembler.unfinished() ? "... " : "> ");
    std::string line;
    const auto outcome = lines.next(line, interrupted);
    if (signals.terminated()) return 143;
    if (outcome == LineReader::Outcome::kInterrupted) {
      (void)assembler.take();
      if (!terminal) return 130;
      print_aside("\nCtrl-D or /quit ends the conversation");
      continue;
    }
    std::optional<std::string> message;
    if (outcome == LineReader::Outcome::kLine) message = assembler.add(line);
    else if (assembler.unfinished()) message = assembler.take();
    over = outcome == LineReader::Outcome::kEnd;
    if (!message || message->find_first_not_of(" \t\n") == std::string::npos || obey(*message, conversation, over)) continue;
    const auto answer = find_invalid_utf8(*message) == std::string_view::npos ? conversation.ask(*message) : error(Code::kInvalidArgument, "a message that is not UTF-8");
    if (signals.terminated()) return 143;
    if (answer) continue;
    print_aside("penstock chat: " + answer.error().message());
    if (!terminal) return exit_code(answer.error());
  }
  if (terminal) fmt::print(stderr, "\n");
  return 0;
}

std::string read_prompt(const StopSignals& signals) {
  if (::isatty(STDIN_FILENO) != 0) print_aside("the prompt, to its end with Ctrl-D:");
  LineReader lines;
  std::string prompt, line;
  for (;;) {
    const auto outcome = lines.next(line, [&] { return signals.count() > 0; });
    if (outcome == LineReader::Outcome::kInterrupted) throw CLI::RuntimeError(130);
    if (outcome == LineReader::Outcome::kEnd) break;
    prompt += line + "\n";
    if (prompt.size() > kLongestPrompt) throw error(Code::kInvalidArgument, "the prompt: expected at most {} bytes", kLongestPrompt);
  }
  while (prompt.ends_with('\n')) prompt.pop_back();
  return prompt;
}

// Logs what goes wrong only: standard error is for the user.
void init_quiet_logging(const char* command) {
  init_logging(command);
  rpc::route_grpc_log();
  const auto level = config::process_environment()("PENSTOCK_LOG");
  if (!level || level->empty()) spdlog::set_level(spdlog::level::warn);
}

void run(ChatCommandOptions options) {
  const StopSignals signals;
  try {
    init_quiet_logging("run");
    if (!options.has_prompt) options.prompt = read_prompt(signals);
    if (options.prompt.empty()) throw Error(Code::kInvalidArgument, "expected a prompt, as an argument or on standard input; found none");
    if (find_invalid_utf8(options.prompt) != std::string_view::npos) throw Error(Code::kInvalidArgument, "the prompt: expected UTF-8");
    LocalModel model(options.model, [&] { return signals.count() == 0; });
    Conversation conversation(model, signals, options);
    const bool as_chat = !options.raw && model.chat_template().ok();
    if (!as_chat && !options.system.empty()) throw Error(Code::kInvalidArgument, "--system: the model has no chat template, or --raw leaves it out");
    const auto answer = as_chat ? conversation.ask(options.prompt) : conversation.complete(options.prompt);
    if (!answer) throw answer.error();
  } catch (const Error& e) {
    if (signals.count() == 0) fail("run", e);
  }
  if (signals.count() > 0) throw CLI::RuntimeError(signals.terminated() ? 143 : 130);
}

void chat(const ChatCommandOptions& options) {
  const StopSignals signals;
  int code = 0;
  try {
    init_quiet_logging("chat");
    LocalModel model(options.model, [&] { return signals.count() == 0; });
    if (!model.chat_template().ok()) {
      const Error& why = model.chat_template().error();
      if (why.code() != Code::kNotFound) throw why;
      throw error(Code::kInvalidArgument, "{}; penstock run continues a text without one", why.message());
    }
    Conversation conversation(model, signals, options);
    if (::isatty(STDIN_FILENO) != 0) print_aside("/help explains, Ctrl-D ends");
    code = converse(conversation, signals);
  } catch (const Error& e) {
    if (signals.count() == 0) fail("chat", e);
    code = signals.terminated() ? 143 : 130;
  }
  if (code != 0) throw CLI::RuntimeError(code);
}

std::shared_ptr<ChatCommandOptions> add_common(CLI::App& command) {
  auto options = std::make_shared<ChatCommandOptions>();
  options->sampling.max_tokens = 1024;
  options->sampling.temperature = 0.8;
  options->sampling.top_p = 0.95;
  command.add_option("model", options->model.model, "A Hugging Face directory, or a GGUF file")->required()->type_name("MODEL");
  command.add_option("--system", options->system, "What the model is told before the conversation");
  command.add_option("--max-tokens", options->sampling.max_tokens, "At most so many tokens in an answer")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command.add_option("--temperature", options->sampling.temperature, "0 = always the likeliest token, up to 2")->check(CLI::Range(0.0, 2.0))->capture_default_str();
  command.add_option("--top-k", options->sampling.top_k, "Choose among the k likeliest tokens; 0 = all")->check(CLI::Range(0, 1 << 20))->capture_default_str();
  command.add_option("--top-p", options->sampling.top_p, "Choose among the likeliest tokens that together have probability p")->check(CLI::Range(1e-6, 1.0))->capture_default_str();
  command.add_option("--seed", options->seed, "The same seed gives the same text");
  command.add_option("--stages", options->model.stages, "Processes that share the layers")->check(CLI::Range(1, 64))->capture_default_str();
  command.add_option("--tensor-ranks", options->model.tensor_ranks, "Processes for each of them, that share every layer")->check(CLI::Range(1, 64))->capture_default_str();
  command.add_option("--device", options->model.device, "auto, cpu or cuda; auto = what the model's configuration says, or a GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--threads", options->model.threads, "Threads of each process; 0 = the machine's cores, shared")->check(CLI::Range(0, 1024))->capture_default_str();
  return options;
}

}  // namespace

void add_run_command(CLI::App& app) {
  auto* command = app.add_subcommand("run", "Answer one prompt with a model of this machine, without a server");
  const auto options = add_common(*command);
  auto* prompt = command->add_option("prompt", options->prompt, "The prompt; without one, standard input to its end")->type_name("PROMPT");
  command->add_flag("--raw", options->raw, "Continue the prompt as it is, without the model's chat template");
  command->footer("A model with a chat template gets the prompt as a message; another one continues it.\n"
                  "Examples:\n"
                  "  penstock run SmolLM2-135M-Instruct.Q4_1.gguf \"Why is the sky blue?\"\n"
                  "  penstock run models/tiny \"Once upon a time\" --temperature 0 --max-tokens 100\n"
                  "  penstock run models/llama --stages 2 < question.txt > answer.txt\n"
                  "The answer goes to stdout, all else to stderr. Ctrl-C ends it.");
  command->callback([options, prompt] {
    options->has_prompt = prompt->count() > 0;
    options->sampling.seed = options->seed;
    run(*options);
  });
}

void add_chat_command(CLI::App& app) {
  auto* command = app.add_subcommand("chat", "Talk with a model of this machine, without a server");
  const auto options = add_common(*command);
  command->footer("Type a message and Enter. A \\ at the end of a line continues it; \"\"\" begins and ends a text of several lines.\n"
                  "/help, /clear, /quit. Ctrl-C stops an answer and not the program; Ctrl-D ends it.\n"
                  "Examples:\n"
                  "  penstock chat SmolLM2-135M-Instruct.Q4_1.gguf\n"
                  "  penstock chat models/qwen --system \"Answer in one sentence.\" --temperature 0.3\n"
                  "  printf 'Hello!\\nWho are you?\\n' | penstock chat models/qwen");
  command->callback([options] {
    options->sampling.seed = options->seed;
    chat(*options);
  });
}

}  // namespace penstock
