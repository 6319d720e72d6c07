// penstock: the control program. Torch-free: it starts in milliseconds, and no model code can crash it.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "commands.h"
#include "torchserve.h"

namespace penstock {

int exit_code(const Error& error) {
  switch (error.code()) {
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kUnimplemented: return 2;
    default: return 1;
  }
}

void fail(const std::string& command, const Error& error) {
  std::fflush(stdout);
  fmt::print(stderr, "penstock {}: {}\n", command, error.message());
  throw CLI::RuntimeError(exit_code(error));
}

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Penstock trains and serves models too large for one device.", "penstock"};
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer("`penstock COMMAND --help` explains a command, with examples.");
  add_train_command(app);
  add_data_command(app);
  add_serve_command(app);
  add_agent_command(app);
  add_generate_command(app);
  add_run_command(app);
  add_chat_command(app);
  add_convert_command(app);
  add_config_command(app);
  add_partition_command(app);
  add_schedule_command(app);
  add_timeline_command(app);
  add_flight_command(app);
  add_checkpoint_command(app);
  add_bench_command(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& ended) {
    return ended.get_exit_code();
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? 0 : 2;  // 0: --help
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  try {
    const bool as_torchserve = std::filesystem::path(argv[0]).filename() == "torchserve";  // a link to this program
    return as_torchserve ? penstock::run_torchserve(argc, argv) : penstock::run(argc, argv);
  } catch (const penstock::Error& failure) {
    fmt::print(stderr, "penstock: {}\n", failure.message());
    return penstock::exit_code(failure);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "penstock: {}\n", failure.what());
    return 1;
  }
}
