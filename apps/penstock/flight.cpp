// `penstock flight`: what the ranks of a stuck run were doing, from their flight recorders.
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "cluster/flight_analysis.h"
#include "commands.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

struct FlightOptions {
  std::string run, trace;
};

void flight(const FlightOptions& options) {
  try {
    const fs::path folder = fs::is_directory(cluster::flight_folder(options.run)) ? cluster::flight_folder(options.run) : fs::path(options.run);
    std::vector<std::string> problems;
    const auto dumps = cluster::read_dumps(folder, &problems);
    for (const std::string& problem : problems) fmt::print(stderr, "penstock flight: {}\n", problem);
    if (dumps.empty()) {
      throw error(Code::kNotFound, "{}: no rank has left a dump; expected a run folder with flight/rank-N.json, which a stuck run writes by itself and any run on SIGUSR1 to a rank",
                  folder.string());
    }
    fmt::print("{} ({})\n{}", dumps.front().reason, folder.string(), cluster::to_text(cluster::analyse_flight(dumps)));
    if (options.trace.empty()) return;
    write_output(options.trace, cluster::to_trace(dumps).to_json());
    fmt::print("the last actions of each rank are in {}: open it in ui.perfetto.dev\n", options.trace);
  } catch (const Error& e) {
    fail("flight", e);
  }
}

}  // namespace

void add_flight_command(CLI::App& app) {
  auto options = std::make_shared<FlightOptions>();
  auto* command = app.add_subcommand("flight", "Why is a run stuck: which rank did not arrive at which operation");
  command->add_option("run", options->run, "A run folder")->required()->type_name("RUN");
  command->add_option("--trace", options->trace, "Also write what the ranks did last as a Chrome trace")->type_name("FILE");
  command->footer("Reads flight/rank-N.json of the run folder. All ranks write them when a step is stuck, a wait has passed its deadline or a rank has died;\n"
                  "`kill -USR1 PID` of any rank makes all ranks write them while the run goes on.\n"
                  "Example:\n"
                  "  penstock flight runs/quickstart --trace stuck.json");
  command->callback([options] { flight(*options); });
}

}  // namespace penstock
