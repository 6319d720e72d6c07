#pragma once
// One machine's part of a training job over several: its agent meets the others at the rendezvous, starts this machine's ranks in every round, and
// ends them when a machine is lost or has come (cluster/rendezvous.h decides when).
#include "cluster/elastic_settings.h"
#include "config/train_config.h"
#include "train_job.h"

namespace penstock {

// Runs until the job has ended on all machines, or a signal asks this one to leave. Returns the exit code of the job.
// Throws Error: settings and configuration that do not fit, a rendezvous that does not answer or refuses this machine.
[[nodiscard]] int run_agent(const config::TrainConfig& config, const TrainOptions& options, const cluster::ElasticSettings& settings);

}  // namespace penstock
