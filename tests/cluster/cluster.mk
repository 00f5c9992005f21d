# SPDX-License-Identifier: Apache-2.0
# The cluster that demo and e2e tests run on:
#   CLUSTER=local    a Kubernetes of this checkout, without Docker (needs root on Linux)
#   CLUSTER=kind     a kind cluster, made if it is missing (needs Docker)
#   CLUSTER=current  the current context of your kubeconfig; bring S3 and images yourself
CLUSTER ?= local
export CLUSTER

.PHONY: cluster-up cluster-down cluster-status cluster-clean
ifeq ($(CLUSTER),local)
cluster-up: env ## bring the local cluster up (CLUSTER=local|kind|current)
	$(RUN) -m tests.cluster up

cluster-down: env ## stop the cluster
	$(RUN) -m tests.cluster down

cluster-status: env ## show the cluster's parts
	$(RUN) -m tests.cluster status

cluster-clean: env
	$(RUN) -m tests.cluster clean
else ifeq ($(CLUSTER),kind)
cluster-up: env
	kind get clusters | grep -qx r1reward || kind create cluster --name r1reward --wait 120s

cluster-down:
	kind delete cluster --name r1reward

cluster-status:
	kubectl --context kind-r1reward get nodes,pods -A

cluster-clean: cluster-down
else ifeq ($(CLUSTER),current)
cluster-up: env
	kubectl get nodes

cluster-down:
	@echo "CLUSTER=current is yours: nothing to stop"

cluster-status:
	kubectl get nodes,pods -A

# By hand: the operator's CRDs take the jobs of all namespaces with them.
cluster-clean:
	@echo "CLUSTER=current is yours: the demo's job and operator stay there. To remove them:"
	@echo "  kubectl delete namespace r1reward-demo"
	@echo "  kubectl delete -k tests/e2e/manifests/operator   # and all R1RewardJobs of the cluster"
	@echo "The bucket r1reward keeps what lies below digits/ and artifacts/."
else
$(error CLUSTER is '$(CLUSTER)': use local, kind or current)
endif
