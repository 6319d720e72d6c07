#pragma once
// The commands of `penstock`, one file each. A command adds itself to the program with its options, help and callback;
// a callback that does not end with exit code 0 throws CLI::RuntimeError(code).
#include <CLI/CLI.hpp>

#include "base/error.h"

namespace penstock {

void add_train_command(CLI::App& app);
void add_data_command(CLI::App& app);
void add_partition_command(CLI::App& app);
void add_schedule_command(CLI::App& app);
void add_timeline_command(CLI::App& app);
void add_flight_command(CLI::App& app);
void add_checkpoint_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_bench_serve(CLI::App& bench);
void add_serve_command(CLI::App& app);
void add_agent_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_run_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_config_command(CLI::App& app);

// 2 for what the user can correct (arguments, configuration, a name that is not there), else 1.
[[nodiscard]] int exit_code(const Error& error);

// Prints "penstock COMMAND: MESSAGE" on stderr and ends the command with exit_code().
[[noreturn]] void fail(const std::string& command, const Error& error);

}  // namespace penstock
